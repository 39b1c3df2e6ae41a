"""Catches planted secrets on their way out, in whatever disguise."""

import base64
import re
from collections.abc import Iterable
from contextlib import suppress
from typing import ClassVar

from guardrail.checks.base import CLEAR, Answer, Decision, Finding, OnError

_TAIL = 400
_LEAST = 8
_NOISE = re.compile(r"[\W_]+")
_ENCODED = re.compile(r"[A-Za-z0-9+/_-]{12,}={0,2}")


class CanaryCheck:
    """Blocks any text, whoever wrote it, that holds one of the planted secrets or the canary of its prompt."""

    name: ClassVar[str] = "canary"
    cheap: ClassVar[bool] = True
    version = "2"
    threshold = 1.0
    budget_ms = 1000.0
    on_error: OnError = "block"

    def __init__(self, canaries: Iterable[str]) -> None:
        """Know the secrets; raise ValueError for one too short to be told from ordinary text."""
        self._canaries = tuple(_plain(canary) for canary in canaries)
        if any(len(canary) < _LEAST for canary in self._canaries):
            raise ValueError(f"a canary needs at least {_LEAST} letters and digits")

    def run(self, subject: Answer, /) -> Finding:
        """Look for the secrets as they are, spaced out, reversed, in hexadecimal and in base64."""
        canaries = (*self._canaries, *map(_plain, subject.canaries))
        if not canaries:
            return CLEAR
        text = subject.released[-_TAIL:] + subject.text
        plain = _plain(text)
        views = (plain, plain[::-1], *(_plain(decoded) for decoded in _decoded(text)))
        if any(canary in view for canary in canaries for view in views):
            return Finding(1.0, Decision.BLOCK, "canary_leak", "a planted secret")
        return CLEAR


def _plain(text: str) -> str:
    return _NOISE.sub("", text).lower()


def _decoded(text: str) -> Iterable[str]:
    for found in _ENCODED.finditer(text):
        word = found.group().rstrip("=")
        with suppress(ValueError):
            yield bytes.fromhex(word).decode(errors="ignore")
        with suppress(ValueError):
            yield base64.urlsafe_b64decode(word.replace("+", "-").replace("/", "_") + "=" * (-len(word) % 4)).decode(errors="ignore")
