"""Finds personal data, puts pseudonyms in its place and keeps what they stand for sealed."""
