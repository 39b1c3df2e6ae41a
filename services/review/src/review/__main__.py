"""Lets `python -m review` run the service."""

from review.main import main

main()
