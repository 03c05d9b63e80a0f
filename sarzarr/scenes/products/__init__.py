"""Products: a file a product family, which says what its names and metadata tell."""
