"""Cuts at headings, paragraphs and list items and, only then, sentences; knows nothing of tables and code."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

TARGET_WORDS = 180
LONGEST_WORDS = 230
# What has longer words than this on average is no prose, and is counted and cut by its characters.
CHARACTERS_PER_WORD = 24

# The blanks before an item are bounded: they are read again at each line that they span.
_BLOCK = re.compile(r"\n[ \t]*\n+|\n(?=#{1,6} |\s{0,99}[-*] |\s{0,99}\d+[.)] )")
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
    words, headings = 0, True
    for span in spans:
        if groups and _belongs(words, span, headings=headings):
            groups[-1].append(span)
            words, headings = words + span.words, headings and span.heading
        else:
            groups.append([span])
            words, headings = span.words, span.heading
    return [(group[0].start, group[-1].end) for group in _without_stumps(groups)]


def _belongs(words: int, span: Span, *, headings: bool) -> bool:
    """Return whether a span goes with the group before it, of so many words, which may be `headings` alone."""
    if headings:
        return words < LONGEST_WORDS
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
    words = max(len(_WORD.findall(stripped)), -(-len(stripped) // CHARACTERS_PER_WORD))
    return Span(start, start + len(stripped), words, bool(_HEADING.match(stripped)) and "\n" not in stripped)


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
        yield from _runs(text, sentence)


def _runs(text: str, sentence: Span) -> Iterator[Span]:
    """Yield runs of as many words as a chunk should have, and pieces of words that are longer than that."""
    longest = TARGET_WORDS * CHARACTERS_PER_WORD
    begin, count, end = sentence.start, 0, sentence.start
    for match in _WORD.finditer(text, sentence.start, sentence.end):
        if count and (count == TARGET_WORDS or match.end() - begin > longest):
            yield Span(begin, end, TARGET_WORDS, heading=False)
            begin, count = match.start(), 0
        count, end = count + 1, match.end()
        while end - begin > longest:
            yield Span(begin, begin + longest, TARGET_WORDS, heading=False)
            begin += longest
    yield Span(begin, end, max(count, -(-(end - begin) // CHARACTERS_PER_WORD)), heading=False)
