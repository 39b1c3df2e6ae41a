"""Reads a text as it looks: without invisible characters, odd blanks and hyphens as the usual ones, wide letters as narrow ones."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_INVISIBLE = re.compile("[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]")
_BLANKS = "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_HYPHENS = "\u2010\u2011\u2012\u2212"
_WIDE = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_SAME: dict[int, str | int] = {**dict.fromkeys(map(ord, _BLANKS), " "), **dict.fromkeys(map(ord, _HYPHENS), "-"), **_WIDE}
_RANGE = re.compile(r"(?<=\d)\u2013(?=\d)")


@dataclass(frozen=True)
class Plain:
    """A text as it looks, and for each of its characters the place in the original; none where they are the same."""

    text: str
    places: Sequence[int] = ()

    def original(self, start: int, end: int) -> tuple[int, int]:
        """Return the half-open span of the original that stands behind one of the plain text, not empty."""
        return (self.places[start], self.places[end - 1] + 1) if self.places else (start, end)


def plainly(text: str) -> Plain:
    """Return `text` as it looks; a span of it covers the invisible characters within."""
    if text.isascii():
        return Plain(text)
    same = _RANGE.sub("-", text.translate(_SAME))
    if not _INVISIBLE.search(same):
        return Plain(same)
    places = [place for place, character in enumerate(same) if not _INVISIBLE.match(character)]
    return Plain("".join(same[place] for place in places), places)
