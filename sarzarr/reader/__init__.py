"""The reader: batches without torch."""
