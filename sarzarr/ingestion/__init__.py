"""Ingestion: everything that enters a store."""
