"""Pixels: what a number means, and every pass over pixels."""
