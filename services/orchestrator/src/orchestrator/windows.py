"""Cuts a text that is still being written into whole sentences."""

import re

_TITLES = "".join(rf"(?<!\b{title})" for title in ("Dr", "Mr", "Ms", "Mrs", "St", "No", "vs", "Prof"))
# A sentence ends with its citations, and only where the next one visibly begins: not after `e.g.` or the number of a list.
_END = re.compile(_TITLES + r"(?<!\b\d)(?:[.!?][\"')\]]*(?:\s*\[\d[\d,\s]*\])*[.!?]?\s+|\n+)(?=[^\s\[a-z])")


def split(text: str) -> tuple[str, str]:
    """Return the sentences that are complete, and what may still grow."""
    end = 0
    for match in _END.finditer(text):
        end = match.end()
    return text[:end], text[end:]
