"""Runs guardrail as a process."""

from guardrail.main import main

main()
