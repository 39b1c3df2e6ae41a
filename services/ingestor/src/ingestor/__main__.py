"""Starts the service: `python -m ingestor`."""

from ingestor.main import main

main()
