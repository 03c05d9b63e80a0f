"""Overviews: scenes at half their rows and columns, and half of that, averaged in linear power."""
