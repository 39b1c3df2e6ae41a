"""The record of every step that nobody can alter unnoticed."""
