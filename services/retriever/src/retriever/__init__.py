"""Finds the passages that a caller may see and that are in force."""
