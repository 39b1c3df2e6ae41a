"""Hashed word and character n-grams: what a sentence embedding blurs, such as spelling and numbers."""

import math
import re
from collections import Counter
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
        starts: list[int] = [0]
        indices: list[int] = []
        values: list[float] = []
        for text in texts:
            counts = Counter(crc32(gram.encode()) % self.buckets for gram in self._grams(text))
            weights = [1.0 + math.log(count) for count in counts.values()]
            length = math.sqrt(sum(weight * weight for weight in weights)) or 1.0
            indices.extend(counts)
            values.extend(weight / length for weight in weights)
            starts.append(len(indices))
        return SparseRows(
            np.array(starts, dtype=np.int64),
            np.array(indices, dtype=np.int64),
            np.array(values, dtype=np.float32),
        )

    def _grams(self, text: str) -> Iterator[str]:
        # Digits fold together: an order number must not become a class.
        folded = _DIGIT.sub("0", text[: self.longest].lower())
        tokens = _WORD.findall(folded)
        for size in range(1, self.words + 1):
            for start in range(len(tokens) - size + 1):
                yield f"w{size}:" + " ".join(tokens[start : start + size])
        padded = f" {' '.join(tokens)} "
        for size in range(self.low, self.high + 1):
            for start in range(len(padded) - size + 1):
                yield padded[start : start + size]
