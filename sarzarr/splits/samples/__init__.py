"""Splits of samples, whose validation is fixed once."""
