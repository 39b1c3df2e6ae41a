"""Runs the service: `python -m audit`."""

from audit.main import main

main()
