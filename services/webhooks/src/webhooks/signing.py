"""Secrets and signatures as Standard Webhooks has them: whsec_ and base64; v1, and base64 of an HMAC-SHA256."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterable

PREFIX = "whsec_"
_BYTES = 24


def new_secret() -> str:
    """Return a secret that nobody can guess."""
    return PREFIX + base64.b64encode(secrets.token_bytes(_BYTES)).decode()


def headers(delivery_id: str, timestamp: int, body: bytes, keys: Iterable[str]) -> dict[str, str]:
    """Return the three headers of one attempt; `timestamp` in seconds since 1970, one signature for each secret that is valid now."""
    signed = f"{delivery_id}.{timestamp}.".encode() + body
    signatures = [
        "v1," + base64.b64encode(hmac.new(base64.b64decode(key.removeprefix(PREFIX)), signed, hashlib.sha256).digest()).decode()
        for key in keys
    ]
    return {"webhook-id": delivery_id, "webhook-timestamp": str(timestamp), "webhook-signature": " ".join(signatures)}
