"""Turns files into titles, Markdown-like texts and metadata, one module for each format."""
