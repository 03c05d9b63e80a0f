"""Compiled loops over pixels, with the bits of the NumPy passes."""
