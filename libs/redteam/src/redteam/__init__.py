"""Attacks with harmless twins against a running stack, item by item of the OWASP lists."""
