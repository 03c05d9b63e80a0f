"""Grids: where pixels lie, and how they come onto another grid."""
