"""Export: the way out of a store."""
