"""Layers: rasters kept beside backscatter as they are."""
