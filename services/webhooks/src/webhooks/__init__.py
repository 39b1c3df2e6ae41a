"""Webhooks: signed events at addresses of tenants, tried until they arrive or are given up."""
