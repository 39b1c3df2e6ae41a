"""Runs the declared workflow of each request so that a crash costs at most the step that ran."""
