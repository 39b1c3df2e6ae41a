"""Runs the program: `python -m witness`."""

from witness.main import main

main()
