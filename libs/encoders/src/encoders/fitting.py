"""Fits the weights of a TextClassifier; needs the `training` extra."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.sparse import csr_matrix

from encoders.classifier import ClassifierConfig, TextClassifier
from encoders.encoder import Encoder, Vectors
from encoders.features import NgramHasher, SparseRows


@dataclass(frozen=True)
class Recipe:
    """How to fit: regularisation (smaller is stronger), feature scales, weights per class."""

    strength: float = 10.0
    vector_scale: float = 3.0
    ngram_scale: float = 1.0
    balanced: bool = True
    hasher: NgramHasher = field(default_factory=NgramHasher)
    iterations: int = 300


def fit(
    encoder: Encoder,
    name: str,
    texts: Sequence[str],
    labels: Sequence[str],
    recipe: Recipe,
    *,
    vectors: Vectors | None = None,
    grams: SparseRows | None = None,
    weights: Sequence[float] | None = None,
) -> TextClassifier:
    """Fit a classifier whose labels come out sorted; pass `vectors` if already encoded, `grams` if already counted."""
    embedded = encoder.encode(texts) if vectors is None else vectors
    rows = recipe.hasher.rows(texts) if grams is None else grams
    counted = csr_matrix((rows.values, rows.indices, rows.starts), shape=(len(texts), recipe.hasher.buckets))
    names, targets = np.unique(np.array(labels, dtype=str), return_inverse=True)
    importance = np.ones(len(texts), dtype=np.float32) if weights is None else np.asarray(weights, dtype=np.float32)
    if recipe.balanced:
        importance *= (len(texts) / (len(names) * np.bincount(targets)))[targets].astype(np.float32)
    problem = _Problem(embedded * recipe.vector_scale, counted * recipe.ngram_scale, targets, importance * recipe.strength)
    dense, sparse, bias = problem.solve(recipe.iterations)
    config = ClassifierConfig(
        name=name,
        labels=tuple(str(label) for label in names),
        encoder=encoder.identity.key(),
        hasher=recipe.hasher,
        ngram_scale=recipe.ngram_scale,
        vector_scale=recipe.vector_scale,
    )
    return TextClassifier(encoder, config, dense, sparse, bias)


class _Problem:
    """Penalised multinomial regression; dense and sparse features stay apart, which is far faster than one matrix."""

    def __init__(self, dense: Vectors, sparse: csr_matrix, targets: NDArray[np.int64], importance: Vectors) -> None:
        self._dense, self._sparse, self._turned = dense, sparse.astype(np.float32), sparse.T.tocsr().astype(np.float32)
        self._targets, self._importance = targets, importance
        self._classes = int(targets.max()) + 1
        self._size = dense.shape[1] + sparse.shape[1] + 1

    def solve(self, iterations: int) -> tuple[Vectors, Vectors, Vectors]:
        """Return the weights of dense and sparse features, and the bias."""
        start = np.zeros(self._size * self._classes)
        found = minimize(self._loss, start, jac=True, method="L-BFGS-B", options={"maxiter": iterations, "maxcor": 10})
        weights = found.x.reshape(self._size, self._classes).astype(np.float32)
        split = self._dense.shape[1]
        return weights[:split], weights[split:-1], weights[-1]

    def _loss(self, flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = flat.reshape(self._size, self._classes).astype(np.float32)
        split = self._dense.shape[1]
        logits = self._dense @ weights[:split] + self._sparse @ weights[split:-1] + weights[-1]
        logits -= logits.max(axis=1, keepdims=True)
        shares = np.exp(logits)
        totals = shares.sum(axis=1, keepdims=True)
        rows = np.arange(len(self._targets))
        missed = np.log(totals[:, 0]) - logits[rows, self._targets]
        shares /= totals
        shares[rows, self._targets] -= 1.0
        shares *= self._importance[:, None]
        slope = np.empty_like(weights)
        slope[:split] = self._dense.T @ shares
        slope[split:-1] = self._turned @ shares
        slope[-1] = shares.sum(axis=0)
        slope[:-1] += weights[:-1]
        loss = float(self._importance @ missed) + 0.5 * float(np.vdot(weights[:-1], weights[:-1]))
        return loss, slope.astype(np.float64).ravel()


def reconfigure(classifier: TextClassifier, **changes: object) -> TextClassifier:
    """Return the same weights under a changed configuration."""
    return classifier.with_config(replace(classifier.config, **changes))  # type: ignore[arg-type]


def best_temperature(probabilities: NDArray[np.float32], targets: NDArray[np.int64]) -> float:
    """Return the temperature that minimises the loss of `probabilities` made at temperature one."""
    logits = np.log(np.clip(probabilities, 1e-12, 1.0)).astype(np.float64)
    rows = np.arange(len(targets))

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        scaled -= scaled.max(axis=1, keepdims=True)
        chosen = scaled[rows, targets] - np.log(np.exp(scaled).sum(axis=1))
        return float(-chosen.mean())

    found = minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded")
    return float(np.exp(found.x))


def calibrated(
    classifier: TextClassifier,
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    vectors: Vectors | None = None,
    floors: Mapping[str, float] | None = None,
) -> TextClassifier:
    """Return `classifier` with the temperature that fits held-out `texts`, and `floors` if given."""
    index = {label: position for position, label in enumerate(classifier.config.labels)}
    targets = np.array([index[label] for label in labels])
    plain = reconfigure(classifier, temperature=1.0)
    temperature = best_temperature(plain.probabilities(texts, vectors), targets)
    kept = dict(classifier.config.floors if floors is None else floors)
    return reconfigure(plain, temperature=temperature, floors=kept)
