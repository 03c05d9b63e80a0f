"""Blocks of an ingest: read, flagged, normalised and written as whole shards."""
