"""What training scripts of attack and safety heads share: texts embedded and counted once, heads fitted, sources reported."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pools import Item

from encoders import Encoder, TextClassifier
from encoders.encoder import Vectors
from encoders.features import NgramHasher, SparseRows
from encoders.fitting import Recipe, fit
from encoders.metrics import auroc, recall_at_fpr, threshold_at_fpr
from encoders.normalise import normalise
from encoders.reading import read
from encoders.vector_cache import VectorCache

Scores = NDArray[np.float64]
HASHER = NgramHasher(buckets=32768, low=4, longest=1200)


@dataclass(frozen=True)
class Table:
    """Texts with their vectors and n-grams."""

    texts: Sequence[str]
    vectors: Vectors
    grams: SparseRows

    def take(self, places: Sequence[int]) -> "Table":
        """Return the rows at `places`."""
        return Table([self.texts[place] for place in places], self.vectors[list(places)], self.grams.take(places))


@dataclass(frozen=True)
class Readings:
    """Texts cut into parts as in service; text i owns the parts before `ends[i]`."""

    items: Sequence[Item]
    table: Table
    ends: Sequence[int]

    def scores(self, head: TextClassifier, label: str) -> Scores:
        """Return the worst part's probability of every text."""
        shares = head.probabilities(self.table.texts, self.table.vectors, self.table.grams)[:, head.config.labels.index(label)]
        return self.worst(np.asarray(shares, dtype=np.float64))

    def worst(self, shares: Scores) -> Scores:
        """Return the highest of every text's parts."""
        starts = [0, *self.ends[:-1]]
        return np.array([shares[start:end].max() for start, end in zip(starts, self.ends, strict=True)], dtype=np.float64)


class Laboratory:
    """The encoder with its cache on disk."""

    def __init__(self, data: Path, cache: Path, hasher: NgramHasher = HASHER) -> None:
        """Open the cache."""
        self.data, self._hasher = data, hasher
        self.encoder = Encoder.load()
        self.cache = VectorCache(self.encoder, cache)

    def table(self, texts: Sequence[str]) -> Table:
        """Embed and count texts."""
        return Table(texts, self.cache.encode(texts), self._hasher.rows(texts))

    def readings(self, items: Iterable[Item], channel: str) -> Readings:
        """Read texts as the detectors do."""
        listed = list(items)
        parts = [read(item.text, channel).parts for item in listed]
        return Readings(
            listed, self.table([part for group in parts for part in group]), np.cumsum([len(group) for group in parts]).tolist()
        )

    def fit(self, name: str, table: Table, labels: Sequence[str], recipe: Recipe, weights: Sequence[float] | None = None) -> TextClassifier:
        """Fit a head on the rows of a table."""
        return fit(self.encoder, name, table.texts, labels, recipe, vectors=table.vectors, grams=table.grams, weights=weights)


def readable(text: str) -> str:
    """Return what heads are trained on of a text."""
    return normalise(text).everything()


def at_fpr(scores: Scores, fpr: float) -> float:
    """Return the threshold that flags at most `fpr` of harmless scores."""
    return threshold_at_fpr(scores, np.zeros(len(scores), dtype=bool), fpr)


def by_source(items: Sequence[Item], scores: Scores, threshold: float, calm: Scores | None = None) -> dict[str, Any]:
    """Return recall, false-positive rate and AUROC for every source; sources of attacks alone are set against `calm`."""
    groups: dict[str, list[int]] = defaultdict(list)
    for place, item in enumerate(items):
        groups[item.source].append(place)
    report: dict[str, Any] = {}
    for source, places in sorted(groups.items()):
        positive, part = np.array([items[place].attack for place in places]), scores[places]
        entry: dict[str, Any] = {"n": len(places)}
        if positive.any():
            entry["recall"] = round(float((part[positive] >= threshold).mean()), 4)
        if not positive.all():
            entry["fpr"] = round(float((part[~positive] >= threshold).mean()), 4)
        if (area := auroc(part, positive)) is not None:
            entry["auroc"] = round(area, 4)
            entry["recall_at_1pct_fpr"] = round(recall_at_fpr(part, positive, 0.01) or 0.0, 4)
        elif positive.any() and calm is not None:
            both = np.concatenate([part, calm])
            entry["auroc_against_calm"] = round(auroc(both, np.arange(len(both)) < len(part)) or 0.0, 4)
        report[source] = entry
    return report
