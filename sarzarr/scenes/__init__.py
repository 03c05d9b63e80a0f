"""Scenes: what files are."""
