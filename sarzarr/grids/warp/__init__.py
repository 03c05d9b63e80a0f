"""Warping: a raster brought onto a grid, window by window."""
