"""Archives of small rasters on their way into collections."""
