"""Runs the service: `python -m inference`."""

from inference.main import main

main()
