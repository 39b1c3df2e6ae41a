"""The ways to cut a text, one module each; their names and versions are in `knowledge.chunking`."""
