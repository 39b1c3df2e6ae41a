"""Finds instructions that do not belong: attacks by the user, and orders hidden in documents and tool results."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from encoders.addressing import speaks_to_a_machine
from encoders.classifier import ClassifierFileError, TextClassifier
from encoders.encoder import Embedder, Vectors
from encoders.reading import Reading, read
from encoders.switching import drops_orders, foreignness
from encoders.topics import familiarity
from encoders.windows import CHANNELS, DOCUMENT, USER

ATTACK = "attack"
# Of 31,000 harmless documents of the development sets, not one speaks to a machine.
_SPOKEN_TO = 0.995
# Log odds that a sentence of a document loses where its words are those of the rest: policies give orders about their own subject.
# The most keeps who repeats an order in other words from hiding it. Chosen on tau2 banking, GitHub policies, MedQuAD and ABCD.
_FAMILIAR, _MOST_FAMILIAR = 3.0, 1.75
# Log odds of a user's text: more where it drops earlier orders, in whatever language; less where it is not English, in which nearly all
# that is harmless was written that the guard has seen. Chosen on deepset, which is therefore no longer unseen.
_DROPS_ORDERS, _NOT_ENGLISH = 3.0, 1.5
SETTINGS_FILE = "detector.json"


@dataclass(frozen=True)
class InjectionScore:
    """How likely a text holds an attack, whether that is too much, and which part says so."""

    probability: float
    flagged: bool
    window: str
    invisible_characters: int


class InjectionDetector:
    """One head and one threshold for each channel: what users write, and sentences inside documents and tool results."""

    def __init__(self, heads: Mapping[str, TextClassifier], thresholds: Mapping[str, float], version: str) -> None:
        """Hold a head for each of the channels `user`, `document` and `tool`, and its threshold."""
        self._heads = dict(heads)
        self.thresholds = dict(thresholds)
        self.version = version

    @classmethod
    def load(cls, directory: Path, encoder: Embedder) -> Self:
        """Read `user.npz`, `document.npz`, `tool.npz` and `detector.json`; raise ClassifierFileError."""
        try:
            settings = json.loads((directory / SETTINGS_FILE).read_text(encoding="utf-8"))
            thresholds = {channel: float(settings["thresholds"][channel]) for channel in CHANNELS}
            version = str(settings["version"])
        except (OSError, KeyError, ValueError) as error:
            raise ClassifierFileError(f"{str(directory / SETTINGS_FILE)!r} cannot be used: {error}") from error
        heads = {channel: TextClassifier.load(directory / f"{channel}.npz", encoder) for channel in CHANNELS}
        return cls(heads, thresholds, version)

    def score(self, text: str, channel: str = USER) -> InjectionScore:
        """Return the worst part of `text`; `channel` is `user`, `document` or `tool`, else ValueError."""
        return self.judge(read(text, channel))

    def judge(self, reading: Reading, vectors: Vectors | None = None) -> InjectionScore:
        """Return the worst part of a reading; pass `vectors` (one row per part) if its parts are already encoded."""
        head = self._heads[reading.channel]
        grams = reading.grams(head.config.hasher)
        shares: NDArray[np.floating[Any]] = head.probabilities(reading.parts, vectors, grams)[:, head.config.labels.index(ATTACK)]
        if reading.channel == DOCUMENT:
            shares = unfamiliar(shares, reading.parts)
        if reading.channel == USER:
            shares = weighed(shares, reading.parts)
        else:
            shares = np.where([speaks_to_a_machine(part) for part in reading.parts], np.maximum(shares, _SPOKEN_TO), shares)
        worst = int(shares.argmax())
        share = float(shares[worst])
        return InjectionScore(share, share >= self.thresholds[reading.channel], reading.parts[worst], reading.invisible)


def weighed(shares: NDArray[np.floating[Any]], parts: Sequence[str]) -> NDArray[np.float64]:
    """Return the probabilities of the parts of a user's text, given what its words say and in which language."""
    return _moved(shares, np.array([_DROPS_ORDERS * drops_orders(part) - _NOT_ENGLISH * foreignness(part) for part in parts]))


def unfamiliar(shares: NDArray[np.floating[Any]], parts: Sequence[str]) -> NDArray[np.float64]:
    """Return the probabilities of the parts of a document, less where a part speaks of what the others speak of."""
    return _moved(shares, -np.minimum(_FAMILIAR * np.array(familiarity(parts)), _MOST_FAMILIAR))


def _moved(shares: NDArray[np.floating[Any]], by: NDArray[np.float64]) -> NDArray[np.float64]:
    kept = np.clip(np.asarray(shares, dtype=np.float64), 1e-9, 1 - 1e-9)
    return np.asarray(1 / (1 + np.exp(-by - np.log(kept / (1 - kept)))), dtype=np.float64)
