"""Runs declared tools within their limits, and nothing else."""
