"""Tells unsafe texts apart: hate, harassment, self-harm, sexual content, violence and requests for harm."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from encoders.classifier import ClassifierFileError, TextClassifier
from encoders.encoder import Embedder, Vectors
from encoders.features import SparseRows
from encoders.reading import Reading, read
from encoders.self_harm import speaks_of_self_harm

SAFETY_SETTINGS = "safety.json"
SELF_HARM = "self_harm"
UNSAFE = "unsafe"
# A rude tone alone makes nothing unsafe: this head tells only what a flagged text is.
_ONLY_NAMED = "harassment"
# Log odds by which one category must exceed its own threshold to count as much as the head for everything; chosen on half of the
# development part of the OpenAI moderation set.
_CATEGORY_HANDICAP = 2.5
Shares = NDArray[np.float64]


@dataclass(frozen=True)
class SafetyScore:
    """How likely a text is unsafe at all, how likely each category, and what a flagged text is flagged for, worst first."""

    probability: float
    flagged: bool
    categories: Mapping[str, float]
    flagged_categories: tuple[str, ...]


class SafetyDetector:
    """One head for unsafe at all and one for each category, over the same parts that the user's injection head looks at."""

    def __init__(self, heads: Mapping[str, TextClassifier], centres: Mapping[str, float], threshold: float, version: str) -> None:
        """Hold heads by name, `unsafe` among them, each with labels `no` and `yes`; `centres` are their own thresholds."""
        self._heads = dict(heads)
        self._centres = dict(centres)
        self.threshold = threshold
        self.version = version
        self.categories = tuple(name for name in self._heads if name != UNSAFE)

    @classmethod
    def load(cls, directory: Path, encoder: Embedder) -> Self:
        """Read `safety.json` and the weights of the heads that it names; raise ClassifierFileError."""
        try:
            settings = json.loads((directory / SAFETY_SETTINGS).read_text(encoding="utf-8"))
            centres = {str(name): float(value) for name, value in settings["centres"].items()}
            threshold, version = float(settings["threshold"]), str(settings["version"])
        except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise ClassifierFileError(f"{str(directory / SAFETY_SETTINGS)!r} cannot be used: {error}") from error
        if UNSAFE not in centres:
            raise ClassifierFileError(f"{str(directory / SAFETY_SETTINGS)!r} has no centre {UNSAFE!r}")
        return cls({name: TextClassifier.load(directory / f"{name}.npz", encoder) for name in centres}, centres, threshold, version)

    def score(self, text: str) -> SafetyScore:
        """Return the probabilities of the worst part of `text`."""
        return self.judge(read(text))

    def judge(self, reading: Reading, vectors: Vectors | None = None) -> SafetyScore:
        """Return the worst part's probabilities; pass `vectors` (one row per part) if the parts are already encoded."""
        shares = {name: yes(head, reading.parts, vectors, reading.grams(head.config.hasher)) for name, head in self._heads.items()}
        probability = float(combined(shares, self._centres).max())
        categories = {name: float(shares[name].max()) for name in self.categories}
        named = self._named(categories) if probability >= self.threshold else ()
        said = any(speaks_of_self_harm(part) for part in reading.parts)
        if said or categories.get(SELF_HARM, 0.0) >= self._centres.get(SELF_HARM, 1.0):
            # It has a threshold of its own: here a miss is worse than a person who reads in vain.
            named = (SELF_HARM, *named)
        return SafetyScore(probability, bool(named), categories, named)

    def _named(self, categories: Mapping[str, float]) -> tuple[str, ...]:
        """Return the categories over their thresholds, worst first, or the one that comes nearest."""
        margins = {
            name: float(logits(np.array(share)) - logits(np.array(self._centres[name])))
            for name, share in categories.items()
            if name != SELF_HARM
        }
        order = sorted(margins, key=margins.__getitem__, reverse=True)
        return tuple(name for name in order if margins[name] >= 0) or tuple(order[:1])


def yes(head: TextClassifier, texts: Sequence[str], vectors: Vectors | None, grams: SparseRows) -> Shares:
    """Return a head's probability of `yes` for every text."""
    found = head.probabilities(texts, vectors, grams)[:, head.config.labels.index("yes")]
    return np.asarray(found, dtype=np.float64)


def combined(shares: Mapping[str, Shares], centres: Mapping[str, float]) -> Shares:
    """Return the probability that any head has reason to object, each measured from its own threshold."""
    margins = [logits(shares[name]) - logits(np.array(centres[name])) - (0.0 if name == UNSAFE else _CATEGORY_HANDICAP)
               for name in shares if name != _ONLY_NAMED]  # fmt: skip
    total: Shares = np.logaddexp.reduce(margins)
    return 1 / (1 + np.exp(-total))


def logits(shares: Shares) -> Shares:
    """Return log odds, bounded to those of one in a million."""
    kept = np.clip(shares, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(kept / (1 - kept)), dtype=np.float64)
