"""A witness of transparency logs: it remembers how long each log was, and signs only what continues that."""
