"""Synthetic scenes: speckle over invented ground."""
