"""Stacks: dates of one place, orbit and pass."""
