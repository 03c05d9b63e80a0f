"""Splits: which ground is on which side."""
