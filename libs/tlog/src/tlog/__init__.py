"""Transparency logs after RFC 6962 and C2SP: trees, tiles, signed notes; no service, no bus, no storage of its own."""
