"""Calibrated text classification on the shared encoder, in numpy alone."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from encoders.encoder import Embedder, Vectors
from encoders.features import NgramHasher, SparseRows

WEIGHTS_FILE = "classifier.npz"
Matrix = NDArray[np.float32]


class ClassifierFileError(ValueError):
    """Raised when a file of weights cannot be used; the text names the file and the reason."""


@dataclass(frozen=True)
class Prediction:
    """One decision: the label, its probability, and the probability of every label."""

    label: str
    confidence: float
    probabilities: Mapping[str, float]


@dataclass(frozen=True)
class ClassifierConfig:
    """Everything but the weights.

    `floors` maps a label to the probability from which it wins over all others; below
    `oos_threshold` of the best label, `oos_label` is answered.
    """

    name: str
    labels: tuple[str, ...]
    encoder: str
    hasher: NgramHasher = field(default_factory=NgramHasher)
    ngram_scale: float = 1.0
    vector_scale: float = 1.0
    temperature: float = 1.0
    floors: Mapping[str, float] = field(default_factory=dict)
    oos_label: str | None = None
    oos_threshold: float = 0.0

    def to_json(self) -> str:
        """Return the configuration as indented JSON."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote; raise KeyError, TypeError or ValueError."""
        fields: dict[str, Any] = json.loads(text)
        hasher = NgramHasher(**fields.pop("hasher"))
        return cls(hasher=hasher, labels=tuple(fields.pop("labels")), **fields)


class TextClassifier:
    """Multinomial logistic regression over an embedding and hashed n-grams."""

    def __init__(self, encoder: Embedder, config: ClassifierConfig, dense: Matrix, sparse: Matrix, bias: Matrix) -> None:
        """Hold weights: `dense` (width of the encoder, classes), `sparse` (buckets, classes), `bias` (classes)."""
        self.config = config
        self._encoder = encoder
        self._dense = dense
        self._sparse = sparse
        self._bias = bias

    @classmethod
    def load(cls, path: Path, encoder: Embedder) -> Self:
        """Read a file, or `classifier.npz` of a folder; raise ClassifierFileError."""
        file = path / WEIGHTS_FILE if path.is_dir() else path
        try:
            with np.load(file, allow_pickle=False) as arrays:
                config = ClassifierConfig.from_json(str(arrays["config"]))
                weights = [arrays[name].astype(np.float32) for name in ("dense", "sparse", "bias")]
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ClassifierFileError(f"{str(file)!r} is not a classifier: {error}") from error
        if config.encoder != encoder.identity.key():
            found = encoder.identity.key()
            raise ClassifierFileError(f"{str(file)!r} needs encoder {config.encoder!r}, not {found!r}")
        return cls(encoder, config, *weights)

    def save(self, path: Path) -> None:
        """Write weights as float16 and the configuration to one file."""
        with path.open("wb") as handle:
            np.savez_compressed(
                handle,
                config=np.array(self.config.to_json()),
                dense=self._dense.astype(np.float16),
                sparse=self._sparse.astype(np.float16),
                bias=self._bias.astype(np.float32),
            )

    def with_config(self, config: ClassifierConfig) -> Self:
        """Return the same weights under another configuration."""
        return type(self)(self._encoder, config, self._dense, self._sparse, self._bias)

    def blended(self, other: Self, mine: float, theirs: float) -> Self:
        """Return a classifier whose logits are a weighted sum; both must have the same labels, features and scales, else ValueError."""
        if (self.config.labels, self.config.hasher, self.config.ngram_scale, self.config.vector_scale) != (
            other.config.labels,
            other.config.hasher,
            other.config.ngram_scale,
            other.config.vector_scale,
        ):
            raise ValueError(f"{other.config.name!r} has other labels or features than {self.config.name!r}")
        pairs = ((self._dense, other._dense), (self._sparse, other._sparse), (self._bias, other._bias))
        dense, sparse, bias = (mine * first + theirs * second for first, second in pairs)
        return type(self)(self._encoder, self.config, dense, sparse, bias)

    def probabilities(self, texts: Sequence[str], vectors: Vectors | None = None, grams: SparseRows | None = None) -> Matrix:
        """Return calibrated probabilities (n, classes); pass `vectors` if already encoded, `grams` if already counted."""
        config = self.config
        embedded = self._encoder.encode(texts) if vectors is None else vectors
        logits = (embedded * config.vector_scale) @ self._dense + self._bias
        counted = config.hasher.rows(texts) if grams is None else grams
        logits += counted.dot(self._sparse) * config.ngram_scale
        return softmax(logits / config.temperature)

    def predict(self, texts: Sequence[str], vectors: Vectors | None = None) -> list[Prediction]:
        """Return one decision per text, in order."""
        return [self._decide(row) for row in self.probabilities(texts, vectors)]

    def _decide(self, row: NDArray[np.float32]) -> Prediction:
        config = self.config
        shares = {label: float(share) for label, share in zip(config.labels, row, strict=True)}
        label = max(shares, key=shares.__getitem__)
        raised = [name for name, floor in config.floors.items() if shares[name] >= floor]
        if raised:
            label = max(raised, key=shares.__getitem__)
        elif config.oos_label is not None and _best_in_scope(shares, config) < config.oos_threshold:
            label = config.oos_label
        return Prediction(label, _confidence(label, shares, config), shares)


def softmax(logits: NDArray[np.floating[Any]]) -> Matrix:
    """Return row-wise probabilities."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), dtype=np.float32)


def _best_in_scope(shares: Mapping[str, float], config: ClassifierConfig) -> float:
    return max(share for label, share in shares.items() if label != config.oos_label)


def _confidence(label: str, shares: Mapping[str, float], config: ClassifierConfig) -> float:
    if label != config.oos_label:
        return shares[label]
    # Out of scope is also everything that the best known label leaves unexplained.
    return max(shares.get(label, 0.0), 1.0 - _best_in_scope(shares, config))
