"""Secrets that prompts may hold and answers may not: one for each tenant and day, derived and never stored."""

import hashlib
import hmac
import time

_CONTEXT = b"strata canary v1\0"
_CHARACTERS = 16


class Canaries:
    """Derives canaries from a key that only guardrail has."""

    def __init__(self, key: bytes, *, rotation_seconds: float) -> None:
        """Change every tenant's canary each `rotation_seconds`."""
        self._key, self._period = key, rotation_seconds

    def current(self, tenant: str, *, now: float | None = None) -> str:
        """Return what prompts of this tenant hold now: 16 hexadecimal digits, 64 bits of a MAC."""
        return self._at(tenant, self._number(now))

    def valid(self, tenant: str, *, now: float | None = None) -> tuple[str, str]:
        """Return what answers must not hold: the canary of now and the one before it, whose requests may still run."""
        number = self._number(now)
        return self._at(tenant, number), self._at(tenant, number - 1)

    def _number(self, now: float | None) -> int:
        return int((time.time() if now is None else now) // self._period)

    def _at(self, tenant: str, number: int) -> str:
        return hmac.new(self._key, _CONTEXT + f"{tenant}\0{number}".encode(), hashlib.sha256).hexdigest()[:_CHARACTERS]
