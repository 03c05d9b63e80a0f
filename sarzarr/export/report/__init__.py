"""The report of a store: one HTML file that needs nothing else, and asks no network."""
