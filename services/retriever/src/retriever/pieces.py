"""Passages that are made of several pieces of one version: each verbatim, with its place in the stored text."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from knowledge.schema import Chunk

# Each is matched where a run of blanks begins or ends: one expression for all would read every run once for each of its blanks.
_RUN = re.compile(r"\s+")
_OPENING = re.compile(r"[\"'(\[]?[A-Z0-9-]")
_ITEM = re.compile(r"-\s++(?=[A-Z])")
# Pieces this close have nothing but blanks between them.
_BLANKS = 4
_OMITTED = " …\n"
# What the encoder puts around every text.
_MARKS = 2
Count = Callable[[str], int]


@dataclass(frozen=True)
class Piece:
    """A half-open range of characters of a version's text, and what stands there."""

    start: int
    end: int
    text: str


def joined(chunk: Chunk, pieces: Sequence[Piece]) -> Chunk:
    """Return the chunk with the pieces as its text; an ellipsis stands where text was left out between them."""
    text = pieces[0].text
    for before, after in pairwise(pieces):
        text += ("\n" if after.start - before.end <= _BLANKS else _OMITTED) + after.text
    return replace(chunk, text=text, start=pieces[0].start, end=pieces[-1].end)


def sentences(text: str) -> list[tuple[int, int]]:
    """Return the half-open ranges of the sentences of a text."""
    ends = list(_gaps(text))
    starts = [0, *(after for _, after in ends)]
    stops = [*(before for before, _ in ends), len(text)]
    return [(start, stop) for start, stop in zip(starts, stops, strict=True) if text[start:stop].strip()]


def _gaps(text: str) -> Iterator[tuple[int, int]]:
    """Yield what stands between sentences, lines, and items of a list that was written into a line."""
    passed = 0
    for run in _RUN.finditer(text):
        start, end = run.span()
        if start < passed:
            continue
        item = None if run[0].strip("\n") == "" else _ITEM.match(text, end)
        if text[max(start - 1, 0)] in ".!?" and _OPENING.match(text, end):
            yield start, end
        elif item:
            passed = item.end()
            yield start, passed
        elif "\n" in run[0]:
            yield start + run[0].index("\n"), start + run[0].rindex("\n") + 1


def sentences_of(pieces: Sequence[Piece]) -> list[Piece]:
    """Return the sentences of the pieces, in order."""
    return [
        Piece(piece.start + start, piece.start + end, piece.text[start:end]) for piece in pieces for start, end in sentences(piece.text)
    ]


def merged(pieces: Sequence[Piece], chosen: Sequence[Piece]) -> list[Piece]:
    """Return the chosen sentences of `pieces`, neighbours in one piece with the blanks between them."""
    places = {sentence.start for sentence in chosen}
    found: list[Piece] = []
    for piece in pieces:
        run: list[Piece] = []
        for sentence in [*sentences_of([piece]), None]:
            if sentence is not None and sentence.start in places:
                run.append(sentence)
                continue
            if run:
                start, end = run[0].start, run[-1].end
                found.append(Piece(start, end, piece.text[start - piece.start : end - piece.start]))
            run = []
    return found


def tokens(text: str, count: Count) -> int:
    """Return the tokens of a text of any length; the encoder alone reads no more than its first ones."""
    return sum(max(count(text[start:end]) - _MARKS, 0) for start, end in sentences(text))
