"""The shape of API keys and of what is stored of them."""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

_FORMAT = re.compile(r"sk-strata-([a-z0-9]{12})-([A-Za-z0-9_-]{43})")


@dataclass(frozen=True)
class NewKey:
    """A key that was just made; `plain` is shown once and never stored."""

    key_id: str
    plain: str
    digest: str


def new_key() -> NewKey:
    """Return a key with 256 random bits."""
    key_id = secrets.token_hex(6)
    secret = secrets.token_urlsafe(32)
    return NewKey(key_id, f"sk-strata-{key_id}-{secret}", digest(key_id, secret))


def parse(plain: str) -> tuple[str, str] | None:
    """Return key id and secret of a key, or None for anything that is not one."""
    match = _FORMAT.fullmatch(plain)
    return (match[1], match[2]) if match else None


def digest(key_id: str, secret: str) -> str:
    """Return what is stored of a secret; salted by the key's id, and fast because the secret is random."""
    return hashlib.sha256(f"{key_id}:{secret}".encode()).hexdigest()


def matches(key_id: str, secret: str, stored: str) -> bool:
    """Return whether a secret is the one that was stored, in constant time."""
    return hmac.compare_digest(digest(key_id, secret), stored)
