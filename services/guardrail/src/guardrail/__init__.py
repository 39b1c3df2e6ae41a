"""Checks what comes in and goes out, and signs what may leave."""
