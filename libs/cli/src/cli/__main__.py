"""Run `strata` as a module."""

from cli.main import app

app()
