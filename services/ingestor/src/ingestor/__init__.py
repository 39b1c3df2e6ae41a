"""Takes documents in, keeps their versions in order and makes them searchable."""
