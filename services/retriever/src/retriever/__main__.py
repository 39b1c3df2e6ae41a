"""Starts the service: `python -m retriever`."""

from retriever.main import main

main()
