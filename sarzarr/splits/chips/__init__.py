"""Splits of collections: whole chips, by the ground that they show or by lists that an archive brings."""
