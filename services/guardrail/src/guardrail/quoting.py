"""Finds words in a passage whatever their case, blanks and quotation marks, and says where they stand."""
# ruff: noqa: RUF001 - people type curly quotes, and so must the tables

import re
from dataclasses import dataclass
from functools import lru_cache

_QUOTED = re.compile(r"\"([^\"\n]{12,}?)\"|“([^“”\n]{12,}?)”|«([^«»\n]{12,}?)»")
_SAME = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'", "–": "-", "—": "-", "\u00a0": " "})
_FEWEST_WORDS = 3
_END = " .,;:!?…"


@dataclass(frozen=True)
class Quote:
    """Words between quotation marks, by their place in the text."""

    start: int
    end: int
    text: str


@dataclass(frozen=True)
class _Plain:
    text: str
    places: tuple[int, ...]


@lru_cache(maxsize=64)
def _plain(text: str) -> _Plain:
    """Return `text` folded, with the place of each character that is left."""
    letters: list[str] = []
    places: list[int] = []
    for place, character in enumerate(text.translate(_SAME)):
        if character.isspace():
            if letters and letters[-1] != " ":
                letters.append(" ")
                places.append(place)
            continue
        folded = character.casefold()
        letters.append(folded)
        places.extend([place] * len(folded))
    return _Plain("".join(letters), tuple(places))


def locate(words: str, passage: str) -> tuple[int, int] | None:
    """Return where `passage` holds `words` as a whole, half-open; None where it does not."""
    wanted = " ".join(words.translate(_SAME).casefold().split()).strip(_END)
    if not wanted:
        return None
    plain = _plain(passage)
    start = plain.text.find(wanted)
    while start >= 0:
        end = start + len(wanted)
        if not (plain.text[start - 1 : start].isalnum() or plain.text[end : end + 1].isalnum()):
            return plain.places[start], plain.places[end - 1] + 1
        start = plain.text.find(wanted, start + 1)
    return None


def quotes(text: str) -> tuple[Quote, ...]:
    """Return what stands between quotation marks and is long enough to be a quotation."""
    found = []
    for match in _QUOTED.finditer(text):
        group = next(number for number in (1, 2, 3) if match[number] is not None)
        if len(match[group].split()) >= _FEWEST_WORDS:
            found.append(Quote(match.start(group), match.end(group), match[group]))
    return tuple(found)
