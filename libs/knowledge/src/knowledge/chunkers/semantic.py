"""Cuts where the subject changes: where neighbouring sentences are least alike."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from encoders.encoder import Vectors
from knowledge.chunkers.blocks import Block, Part, blocks, fitting

Encode = Callable[[Sequence[str]], Vectors]

LEAST_WORDS = 60
LONGEST_WORDS = 230
# How far below the average of the text, in standard deviations, two neighbours are about something else.
_DROP = 1.0
_HEADING_BONUS = 0.2


def semantic(text: str, encode: Encode) -> list[tuple[int, int]]:
    """Return half-open character ranges that each stay with one subject; `encode` returns unit vectors (n, d)."""
    pieces = [piece for block in blocks(text) for piece in fitting(text, block, LONGEST_WORDS, sentences=True)]
    if sum(piece.words for piece in pieces) <= LEAST_WORDS:
        return [(pieces[0].start, pieces[-1].end)] if pieces else []
    likeness = _likeness(text, pieces, encode)
    known = likeness[np.isfinite(likeness)]
    sharp = float(known.mean() - _DROP * known.std()) if known.size else -1.0
    cuts = [0]
    while cuts[-1] < len(pieces):
        cuts.append(_cut(pieces, likeness, cuts[-1], sharp))
    cuts = _joined(pieces, cuts)
    return [(pieces[first].start, pieces[last - 1].end) for first, last in pairwise(cuts)]


def _likeness(text: str, pieces: Sequence[Block], encode: Encode) -> Vectors:
    """Return how alike the two sentences before and the two after each piece's start are; infinite after a heading."""
    vectors = encode([text[piece.start : piece.end] for piece in pieces])
    # Two sentences have the direction of their sum, which costs half of embedding every pair.
    sums = vectors + np.vstack([vectors[1:], vectors[-1:]])
    pairs = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
    found = np.full(len(pieces), np.inf, dtype=np.float32)
    for number in range(1, len(pieces)):
        if pieces[number - 1].part is Part.HEADING:
            continue
        found[number] = float(pairs[max(number - 2, 0)] @ pairs[number])
        if pieces[number].part is Part.HEADING:
            found[number] -= _HEADING_BONUS
    return found


def _cut(pieces: Sequence[Block], likeness: Vectors, first: int, sharp: float) -> int:
    """Return the end of the chunk that begins at `first`."""
    words, best = pieces[first].words, 0
    for number in range(first + 1, len(pieces)):
        if words >= LEAST_WORDS and np.isfinite(likeness[number]) and (best == 0 or likeness[number] < likeness[best]):
            best = number
        words += pieces[number].words
        if words > LONGEST_WORDS:
            return best or number
    return best if best and likeness[best] < sharp else len(pieces)


def _joined(pieces: Sequence[Block], cuts: list[int]) -> list[int]:
    """Drop the last cut where what follows it is short and fits to what is before it."""
    if len(cuts) > 2:
        before, last = (sum(piece.words for piece in pieces[a:b]) for a, b in ((cuts[-3], cuts[-2]), (cuts[-2], cuts[-1])))
        if last < LEAST_WORDS // 2 and before + last <= LONGEST_WORDS:
            return [*cuts[:-2], cuts[-1]]
    return cuts
