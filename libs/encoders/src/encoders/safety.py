"""Tells unsafe texts apart: hate, harassment, self-harm, sexual content, violence and requests for harm."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from encoders.classifier import ClassifierFileError, TextClassifier
from encoders.encoder import Encoder, Vectors
from encoders.reading import Reading, read

SAFETY_SETTINGS = "safety.json"
SELF_HARM = "self_harm"
UNSAFE = "unsafe"


@dataclass(frozen=True)
class SafetyScore:
    """How likely a text is unsafe at all, how likely each category, and the categories over their thresholds, worst first."""

    probability: float
    flagged: bool
    categories: Mapping[str, float]
    flagged_categories: tuple[str, ...]


class SafetyDetector:
    """One head for unsafe at all and one for each category, over the same parts that the user's injection head looks at."""

    def __init__(self, heads: Mapping[str, TextClassifier], thresholds: Mapping[str, float], version: str) -> None:
        """Hold heads by name, `unsafe` among them, each with labels `no` and `yes`."""
        self._heads = dict(heads)
        self.thresholds = dict(thresholds)
        self.version = version
        self.categories = tuple(name for name in self._heads if name != UNSAFE)

    @classmethod
    def load(cls, directory: Path, encoder: Encoder) -> Self:
        """Read `safety.json` and the weights of the heads that it names; raise ClassifierFileError."""
        try:
            settings = json.loads((directory / SAFETY_SETTINGS).read_text(encoding="utf-8"))
            thresholds = {str(name): float(value) for name, value in settings["thresholds"].items()}
            version = str(settings["version"])
        except (OSError, KeyError, ValueError, AttributeError) as error:
            raise ClassifierFileError(f"{str(directory / SAFETY_SETTINGS)!r} cannot be used: {error}") from error
        if UNSAFE not in thresholds:
            raise ClassifierFileError(f"{str(directory / SAFETY_SETTINGS)!r} has no threshold {UNSAFE!r}")
        return cls({name: TextClassifier.load(directory / f"{name}.npz", encoder) for name in thresholds}, thresholds, version)

    def score(self, text: str) -> SafetyScore:
        """Return the probabilities of the worst part of `text`."""
        return self.judge(read(text))

    def judge(self, reading: Reading, vectors: Vectors | None = None) -> SafetyScore:
        """Return the worst part's probabilities; pass `vectors` (parts, 384) if the parts are already encoded."""
        shares = {name: float(_yes(head, reading, vectors)) for name, head in self._heads.items()}
        over = {name: shares[name] - self.thresholds[name] for name in self.categories if shares[name] >= self.thresholds[name]}
        worst = tuple(sorted(over, key=over.__getitem__, reverse=True))
        flagged = bool(worst) or shares[UNSAFE] >= self.thresholds[UNSAFE]
        return SafetyScore(shares[UNSAFE], flagged, {name: shares[name] for name in self.categories}, worst)


def _yes(head: TextClassifier, reading: Reading, vectors: Vectors | None) -> np.floating[object]:
    return head.probabilities(reading.parts, vectors)[:, head.config.labels.index("yes")].max()
