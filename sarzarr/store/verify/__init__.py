"""A store held against itself: every file, document and table, and what was found."""
