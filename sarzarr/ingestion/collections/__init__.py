"""Archives of small rasters on their way into collections: which file is which chip's what, pixels, and all at once."""
