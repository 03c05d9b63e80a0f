"""The store: its format, and how what stands in it is found again."""
