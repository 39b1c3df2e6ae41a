"""Runs router as a process."""

from router.main import main

main()
