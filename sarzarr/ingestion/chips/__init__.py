"""Chips: pictures that came alone, packed with their boxes."""
