"""Knows people by their given names, where nothing in the sentence says that it is a name."""

import gzip
import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

_FILE = "given_names.txt.gz"
_CAPITAL = r"[A-ZÀ-Ž][a-zß-ž]{1,40}"
_NAME = re.compile(rf"(?<![\w@.&/'’#-]){_CAPITAL}(?![\w@&/-]|\.\w|['’](?!s\b))")  # noqa: RUF001 - people type curly quotes
_FAMILY = re.compile(rf"[ \t]{{1,4}}(?:[A-Z]\.[ \t]{{1,4}})?(?P<v>{_CAPITAL}(?:[-'’]{_CAPITAL})?)(?![\w@])")  # noqa: RUF001
# What bears a name and is nobody.
_PLACE_BEFORE = re.compile(
    r"\b(?:St|Saint|San|Santa|Mount|Mt|Lake|Port|Fort|New|North|South|East|West|Hotel|Hurricane|University of)\.?[ \t]{1,4}$"
)
_THING_AFTER = re.compile(
    r"(?:['’]s)?[ \t-]{1,4}(?i:street|st\b|avenue|ave\b|road|rd\b|lane|drive|boulevard|square|park|county|city|island|river|bay"  # noqa: RUF001
    r"|beach|hill|hospital"
    r"|clinic|medical|health|university|college|school|library|museum|church|center|centre|institute|foundation|bank|inc\b|ltd\b|llc\b"
    r"|corp\b|company|group|store|brand|collection|edition|series|model|plan|award|prize|act\b|law\b|theorem|effect|bot\b|assistant)"
)
# Given to people too, and with a family name they are found.
_DAYS = frozenset({"sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "easter"})
_TITLE_WORDS, _TITLE_SHARE = 4, 0.6


@cache
def known_names(folder: Path) -> frozenset[str]:
    """Return the given names that ship in `folder`, in lower case; none where there is no list."""
    try:
        return frozenset(gzip.decompress((folder / _FILE).read_bytes()).decode().split())
    except FileNotFoundError:
        return frozenset()


def given_names(text: str, known: frozenset[str], barred: Sequence[tuple[int, int]] = ()) -> Iterator[tuple[int, int]]:
    """Yield half-open spans of known given names with a family name behind, outside of what is `barred`."""
    words = text.split()
    # In a headline everything is written as names are.
    if len(words) >= _TITLE_WORDS and sum(word[:1].isupper() for word in words) > _TITLE_SHARE * len(words):
        return
    for match in _NAME.finditer(text):
        start, end = match.span()
        if _plain(match[0]) not in known or _PLACE_BEFORE.search(text, max(0, start - 20), start) or _THING_AFTER.match(text, end):
            continue
        family = _FAMILY.match(text, end)
        if family is None and _plain(match[0]) in _DAYS:
            continue
        if family is not None:
            if _THING_AFTER.match(text, family.end()):
                continue
            end = family.end()
        if not any(start < last and first < end for first, last in barred):
            yield start, end


def _plain(name: str) -> str:
    return unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
