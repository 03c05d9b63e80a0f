"""Patches: what can be trained on."""
