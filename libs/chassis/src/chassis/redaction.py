"""A last guard for log lines: what can only be an e-mail address, a card or a social security number never gets into one."""

import re
from collections.abc import MutableMapping
from typing import Any

_EMAIL = re.compile(r"(?<![\w.+%-])[\w.+%-]+@[\w-]+(?:\.[\w-]+)*\.[A-Za-z]{2,}\b")
_SSN = re.compile(r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])")
_CARD = re.compile(r"(?<![\w.-])\d{4}[ -]?\d{4}[ -]?\d{4}[ -]?\d{4}(?![\w.-])")
_DEEPEST = 6


def _luhn(digits: str) -> bool:
    doubled = (int(d) if i % 2 == 0 else int(d) * 2 - 9 * (d > "4") for i, d in enumerate(reversed(digits)))
    return sum(doubled) % 10 == 0


def _card(match: re.Match[str]) -> str:
    return "<CARD>" if _luhn(re.sub(r"\D", "", match[0])) else match[0]


def redacted(text: str) -> str:
    """Return `text` without what can only be personal; names and places are kept out of logs by not being logged."""
    if "@" in text:
        text = _EMAIL.sub("<EMAIL>", text)
    return _CARD.sub(_card, _SSN.sub("<SSN>", text))


def _clean(value: Any, depth: int = 0) -> Any:
    if isinstance(value, str):
        return redacted(value)
    if depth < _DEEPEST and isinstance(value, dict):
        return {key: _clean(item, depth + 1) for key, item in value.items()}
    if depth < _DEEPEST and isinstance(value, list | tuple):
        return [_clean(item, depth + 1) for item in value]
    return value


def redact_event(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Clean every field of a log line; structlog's signature of a processor."""
    return {key: _clean(value) for key, value in event.items()}
