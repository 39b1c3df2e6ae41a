"""Splits a text into sentences that keep their offsets and the citations at their end."""
# ruff: noqa: RUF001 - people type curly quotes, and so must the patterns

import re
from dataclasses import dataclass

ABSTAIN = "I could not find this in the available documents."

_CITATION = re.compile(r"\[(\d{1,3}(?:\s*,\s*\d{1,3})*)\]")
# A citation behind the full stop belongs to the sentence before it.
_BOUNDARY = re.compile(r"[.!?][\"'”’)]*(?:\s?\[\d[\d,\s]*\])*(?=\s+\S)|\n+")
_ABBREVIATION = re.compile(
    r"(?:\b(?:Dr|Mr|Mrs|Ms|Prof|St|vs|No|approx|e\.g|i\.e|etc|Fig|cf|al|a\.m|p\.m|U\.S|U\.K)|\b[A-Z]|^\s{0,8}\d{1,2}|\n\s{0,8}\d{1,2})\.$"
)
# With the blanks before the number of a list.
_LONGEST_ABBREVIATION = 16
_MARKUP = re.compile(r"^[\s>#*•-]+|^\s*\d{1,2}[.)]\s+|[*_`]+")


@dataclass(frozen=True)
class Sentence:
    """A half-open span of characters with the ids that it cites."""

    start: int
    end: int
    text: str
    citations: tuple[str, ...]

    @property
    def claim(self) -> str:
        """The words without citations, bullets and emphasis."""
        return " ".join(_MARKUP.sub("", _CITATION.sub("", self.text)).split())


def cited(text: str) -> tuple[str, ...]:
    """Return the ids that `text` cites, in order, each once."""
    ids = (part.strip() for match in _CITATION.finditer(text) for part in match[1].split(","))
    return tuple(dict.fromkeys(ids))


def split(text: str) -> tuple[Sentence, ...]:
    """Return the sentences of `text`, without the blanks around them."""
    found, start = [], 0
    for match in _BOUNDARY.finditer(text):
        if match[0][0] == "." and _ABBREVIATION.search(text, max(start, match.start() - _LONGEST_ABBREVIATION), match.start() + 1):
            continue
        found.append((start, match.end()))
        start = match.end()
    found.append((start, len(text)))
    return tuple(s for span in found if (s := _sentence(text, *span)) is not None)


def _sentence(text: str, start: int, end: int) -> Sentence | None:
    raw = text[start:end]
    stripped = raw.strip()
    if not stripped:
        return None
    begin = start + len(raw) - len(raw.lstrip())
    return Sentence(begin, begin + len(stripped), stripped, cited(stripped))


def is_abstention(text: str) -> bool:
    """Return whether `text` is the sentence that says that nothing was found."""
    return text.strip().strip('"') == ABSTAIN
