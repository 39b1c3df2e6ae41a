"""Cuts at headings, paragraphs and list items and, only then, sentences; knows nothing of tables and code."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

TARGET_WORDS = 180
LONGEST_WORDS = 230

_BLOCK = re.compile(r"\n[ \t]*\n+|\n(?=#{1,6} |\s*[-*] |\s*\d+[.)] )")
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[\"'(\[]?[A-Z0-9])")
_WORD = re.compile(r"\S+")
_HEADING = re.compile(r"#{1,6} ")


@dataclass(frozen=True)
class Span:
    """Half-open range of characters."""

    start: int
    end: int
    words: int
    heading: bool


def paragraphs(text: str) -> list[tuple[int, int]]:
    """Return the half-open character ranges of the chunks of `text`, in order; none for blank text."""
    spans = [part for block in _split(text, 0, len(text), _BLOCK) for part in _fit(text, block)]
    if sum(span.words for span in spans) <= LONGEST_WORDS:
        return [(spans[0].start, spans[-1].end)] if spans else []
    groups: list[list[Span]] = []
    for span in spans:
        if groups and _belongs(groups[-1], span):
            groups[-1].append(span)
        else:
            groups.append([span])
    return [(group[0].start, group[-1].end) for group in _without_stumps(groups)]


def _belongs(group: list[Span], span: Span) -> bool:
    words = sum(part.words for part in group)
    if all(part.heading for part in group):
        return True
    if span.heading:
        return words < TARGET_WORDS // 2
    return words + span.words <= TARGET_WORDS


def _without_stumps(groups: list[list[Span]]) -> Iterator[list[Span]]:
    """Join a short last piece, which would be found for the wrong reasons, to the one before it."""
    if len(groups) > 1:
        last, before = groups[-1], groups[-2]
        words = sum(part.words for part in last)
        if words < TARGET_WORDS // 6 and words + sum(part.words for part in before) <= LONGEST_WORDS:
            groups = [*groups[:-2], [*before, *last]]
    yield from groups


def _span(text: str, start: int, end: int) -> Span | None:
    piece = text[start:end]
    stripped = piece.strip()
    if not stripped:
        return None
    start += len(piece) - len(piece.lstrip())
    return Span(start, start + len(stripped), len(_WORD.findall(stripped)), bool(_HEADING.match(stripped)) and "\n" not in stripped)


def _split(text: str, start: int, end: int, separator: re.Pattern[str]) -> Iterator[Span]:
    position = start
    for match in separator.finditer(text, start, end):
        if span := _span(text, position, match.start()):
            yield span
        position = match.end()
    if span := _span(text, position, end):
        yield span


def _fit(text: str, block: Span) -> Iterator[Span]:
    """Yield the block, or its sentences where it is too long, or runs of words where a sentence is."""
    if block.words <= LONGEST_WORDS:
        yield block
        return
    for sentence in _split(text, block.start, block.end, _SENTENCE):
        if sentence.words <= LONGEST_WORDS:
            yield sentence
            continue
        words = list(_WORD.finditer(text, sentence.start, sentence.end))
        for first in range(0, len(words), TARGET_WORDS):
            run = words[first : first + TARGET_WORDS]
            yield Span(run[0].start(), run[-1].end(), len(run), heading=False)
