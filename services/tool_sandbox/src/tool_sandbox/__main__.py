"""Lets `python -m tool_sandbox` start the service."""

from tool_sandbox.main import main

main()
