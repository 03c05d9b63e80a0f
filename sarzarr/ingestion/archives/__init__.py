"""Archives of older pipelines, on their way into a store, or read in place."""
