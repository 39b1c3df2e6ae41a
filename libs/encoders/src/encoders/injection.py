"""Finds instructions that do not belong: attacks by the user, and orders hidden in documents and tool results."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from encoders.classifier import ClassifierFileError, TextClassifier
from encoders.encoder import Encoder
from encoders.normalise import normalise
from encoders.sentences import split_sentences

ATTACK = "attack"
SETTINGS_FILE = "detector.json"
_WINDOW = 900
_STEP = 700
_MOST_WINDOWS = 64
_SHORTEST = 12


@dataclass(frozen=True)
class InjectionScore:
    """How likely a text holds an attack, whether that is too much, and which part says so."""

    probability: float
    flagged: bool
    window: str
    invisible_characters: int


class InjectionDetector:
    """One head for what users write, one for sentences inside data; each with its own threshold."""

    def __init__(self, user: TextClassifier, document: TextClassifier, thresholds: Mapping[str, float], version: str) -> None:
        """Hold two heads; `thresholds` has `user`, `document` and `tool`."""
        self._heads = {"user": user, "document": document, "tool": document}
        self.thresholds = dict(thresholds)
        self.version = version

    @classmethod
    def load(cls, directory: Path, encoder: Encoder) -> Self:
        """Read `user.npz`, `document.npz` and `detector.json`; raise ClassifierFileError."""
        try:
            settings = json.loads((directory / SETTINGS_FILE).read_text(encoding="utf-8"))
            thresholds = {channel: float(settings["thresholds"][channel]) for channel in ("user", "document", "tool")}
            version = str(settings["version"])
        except (OSError, KeyError, ValueError) as error:
            raise ClassifierFileError(f"{str(directory / SETTINGS_FILE)!r} cannot be used: {error}") from error
        heads = [TextClassifier.load(directory / f"{name}.npz", encoder) for name in ("user", "document")]
        return cls(heads[0], heads[1], thresholds, version)

    def score(self, text: str, channel: str = "user") -> InjectionScore:
        """Return the worst window of `text`; `channel` is `user`, `document` or `tool`, else ValueError."""
        if channel not in self._heads:
            raise ValueError(f"unknown channel {channel!r}; known: {sorted(self._heads)}")
        found = normalise(text)
        parts = windows(found.everything(), channel)
        head = self._heads[channel]
        column = head.config.labels.index(ATTACK)
        shares = head.probabilities(parts)[:, column]
        worst = int(shares.argmax())
        share = float(shares[worst])
        return InjectionScore(share, share >= self.thresholds[channel], parts[worst], found.invisible)


def windows(text: str, channel: str) -> Sequence[str]:
    """Return the parts that are scored: a user's text whole and in long pieces, data by sentence."""
    if channel != "user":
        parts = [part for part in split_sentences(text) if len(part) >= _SHORTEST]
        return [part[:_WINDOW] for part in parts[:_MOST_WINDOWS]] or [text[:_WINDOW]]
    if len(text) <= _WINDOW:
        return [text]
    return [text, *(text[start : start + _WINDOW] for start in range(0, len(text) - _WINDOW + _STEP, _STEP))][:_MOST_WINDOWS]
