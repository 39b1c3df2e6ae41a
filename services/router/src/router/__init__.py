"""Decides which model, adapter and effort a request gets."""
