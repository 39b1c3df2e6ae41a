"""Starts the real things that tests talk to; asserts nothing."""
