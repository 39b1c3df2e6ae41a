"""Cuts text into sentences, cheaply and without a model."""

import re

_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]?[A-Z0-9])|\n+|(?<=[;|])\s+")
_ABBREVIATED = re.compile(r"(?:\b(?:Dr|Mr|Mrs|Ms|St|vs|e\.g|i\.e|etc|No|Fig|al|approx|U\.S)|\b[A-Z])\.$")

_LONGEST = 16


def split_sentences(text: str) -> list[str]:
    """Return the sentences and lines of `text`, stripped, in order."""
    parts: list[str] = []
    start = 0
    for match in _END.finditer(text):
        if "\n" not in match[0] and _ABBREVIATED.search(text[max(start, match.start() - _LONGEST) : match.start()]):
            continue
        parts.append(text[start : match.start()])
        start = match.end()
    parts.append(text[start:])
    return [part for raw in parts if (part := raw.strip(" \t|\"'"))]
