"""Packs the sentences that matter for a claim into one window, short enough for a small model."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from encoders.claims import Reading, read
from encoders.sentences import split_sentences

WINDOW_WORDS = 56
_MOST_SENTENCES = 200
_SCENT = 0.25


@dataclass(frozen=True)
class Line:
    """One sentence of a passage, by the passage's place."""

    reading: Reading
    passage: int


def read_lines(passages: Sequence[str]) -> tuple[Line, ...]:
    """Return the sentences of all passages in order, a bounded number of them."""
    lines = [Line(reading, place) for place, text in enumerate(passages) for reading in _sentences(text)]
    return tuple(lines[:_MOST_SENTENCES])


@lru_cache(maxsize=256)
def _sentences(text: str) -> tuple[Reading, ...]:
    return tuple(read(part) for part in split_sentences(text))


def choose(claim: Reading, lines: Sequence[Line], words: int = WINDOW_WORDS) -> tuple[int, ...]:
    """Return the places of the sentences that together cover most of the claim within `words`, in reading order.

    First what adds uncovered words of the claim; then the opening of the best passage, which names its topic, and the
    neighbours of the best sentence, which say who "it" is.
    """
    if sum(len(line.reading.tokens) for line in lines) <= words:
        return tuple(range(len(lines)))
    chosen: list[int] = []
    room, open_words = words, set(claim.content)
    shared = [len(claim.content & line.reading.content) for line in lines]
    while len(chosen) < len(lines):
        rest = [place for place in range(len(lines)) if place not in chosen]
        gain = {place: len(open_words & lines[place].reading.content) + _SCENT * shared[place] for place in rest}
        place = max(rest, key=lambda place: (gain[place], -place))
        if chosen and (room <= 0 or not open_words & lines[place].reading.content):
            break
        chosen.append(place)
        room -= len(lines[place].reading.tokens)
        open_words -= lines[place].reading.content
    best = chosen[0]
    for place in _context(best, lines, shared):
        size = len(lines[place].reading.tokens)
        if place not in chosen and size <= room:
            chosen.append(place)
            room -= size
    return tuple(sorted(chosen))


def _context(best: int, lines: Sequence[Line], shared: Sequence[int]) -> list[int]:
    passage = lines[best].passage
    own = [place for place, line in enumerate(lines) if line.passage == passage]
    near = [place for place in (best - 1, best + 1) if place in own]
    ranked = sorted(range(len(lines)), key=lambda place: -shared[place])
    return [own[0], *near, *(place for place in ranked[:8] if shared[place])]


def window(claim: Reading, lines: Sequence[Line], words: int = WINDOW_WORDS) -> str:
    """Return the chosen sentences as one text."""
    return " ".join(lines[place].reading.text for place in choose(claim, lines, words))
