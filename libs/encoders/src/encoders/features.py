"""Hashed word and character n-grams: what a sentence embedding blurs, such as spelling and numbers."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

_WORD = re.compile(r"\w+|[^\w\s]")
_DIGIT = re.compile(r"\d")


@dataclass(frozen=True)
class SparseRows:
    """Rows in compressed form: row i owns `indices` and `values` from `starts[i]` to `starts[i + 1]`."""

    starts: NDArray[np.int64]
    indices: NDArray[np.int64]
    values: NDArray[np.float32]

    def dot(self, weights: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return rows times `weights` (buckets, classes) as (rows, classes)."""
        result = np.zeros((len(self.starts) - 1, weights.shape[1]), dtype=np.float32)
        for row in range(len(result)):
            span = slice(self.starts[row], self.starts[row + 1])
            result[row] = self.values[span] @ weights[self.indices[span]]
        return result

    def take(self, places: Sequence[int]) -> "SparseRows":
        """Return the rows at `places`, in that order."""
        spans = [slice(self.starts[place], self.starts[place + 1]) for place in places]
        starts = np.cumsum([0, *(span.stop - span.start for span in spans)])
        empty = slice(0, 0)
        indices = np.concatenate([self.indices[span] for span in [*spans, empty]])
        return SparseRows(starts.astype(np.int64), indices, np.concatenate([self.values[span] for span in [*spans, empty]]))


@dataclass(frozen=True)
class NgramHasher:
    """Counts n-grams into `buckets`; words of up to `words` and characters of `low` to `high`."""

    buckets: int = 16384
    words: int = 2
    low: int = 3
    high: int = 5
    longest: int = 2000

    def rows(self, texts: Sequence[str]) -> SparseRows:
        """Return one row per text: damped counts, scaled to length one."""
        found = [np.unique(self._checksums(text) % self.buckets, return_counts=True) for text in texts]
        weights = [1.0 + np.log(counts) for _, counts in found]
        nothing = np.zeros(0)
        return SparseRows(
            np.cumsum([0, *(len(buckets) for buckets, _ in found)]).astype(np.int64),
            np.concatenate([*(buckets for buckets, _ in found), nothing]).astype(np.int64),
            np.concatenate([*(row / (np.sqrt(row @ row) or 1.0) for row in weights), nothing]).astype(np.float32),
        )

    def _checksums(self, text: str) -> NDArray[np.uint32]:
        """Return the CRC-32 of every n-gram of a text."""
        # Digits fold together: an order number must not become a class.
        folded = _DIGIT.sub("0", text[: self.longest].lower())
        tokens = _WORD.findall(folded)
        words = np.array([crc32(gram.encode()) for gram in self._words(tokens)], dtype=np.uint32)
        padded = f" {' '.join(tokens)} "
        if padded.isascii():
            return np.concatenate([words, _runs(padded.encode(), self.low, self.high)])
        sizes = range(self.low, self.high + 1)
        pieces = (padded[start : start + size] for size in sizes for start in range(len(padded) - size + 1))
        return np.concatenate([words, np.array([crc32(piece.encode()) for piece in pieces], dtype=np.uint32)])

    def _words(self, tokens: Sequence[str]) -> Iterator[str]:
        for size in range(1, self.words + 1):
            for start in range(len(tokens) - size + 1):
                yield f"w{size}:" + " ".join(tokens[start : start + size])


def _table() -> NDArray[np.uint32]:
    """Return what one byte does to a CRC-32."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(0xEDB88320), table >> 1)
    return table


_CRC32 = _table()


def _runs(content: bytes, low: int, high: int) -> NDArray[np.uint32]:
    """Return the CRC-32 of every run of `low` to `high` bytes, as `zlib.crc32` has it, all runs of a length at once."""
    values = np.frombuffer(content, dtype=np.uint8)
    state, found = np.full(len(values), 0xFFFFFFFF, dtype=np.uint32), [np.zeros(0, dtype=np.uint32)]
    for size in range(1, min(high, len(values)) + 1):
        state = state[: len(values) - size + 1]
        state = _CRC32[(state ^ values[size - 1 :]) & 0xFF] ^ (state >> 8)
        if size >= low:
            found.append(~state)
    return np.concatenate(found)
