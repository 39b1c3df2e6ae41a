"""Fits the weights of a TextClassifier; needs the `training` extra."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.sparse import csr_matrix, hstack
from sklearn.linear_model import LogisticRegression

from encoders.classifier import ClassifierConfig, TextClassifier
from encoders.encoder import Encoder, Vectors
from encoders.features import NgramHasher


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
    weights: Sequence[float] | None = None,
) -> TextClassifier:
    """Fit a classifier whose labels come out sorted; pass `vectors` if already encoded."""
    embedded = encoder.encode(texts) if vectors is None else vectors
    rows = recipe.hasher.rows(texts)
    grams = csr_matrix((rows.values, rows.indices, rows.starts), shape=(len(texts), recipe.hasher.buckets))
    design = hstack([csr_matrix(embedded * recipe.vector_scale), grams * recipe.ngram_scale]).tocsr()
    model = LogisticRegression(
        C=recipe.strength,
        class_weight="balanced" if recipe.balanced else None,
        max_iter=recipe.iterations,
    ).fit(design, list(labels), sample_weight=None if weights is None else np.asarray(weights))
    coefficients, bias = np.asarray(model.coef_), np.asarray(model.intercept_)
    if len(model.classes_) == 2:
        coefficients, bias = np.vstack([-coefficients, coefficients]) / 2, np.concatenate([-bias, bias]) / 2
    config = ClassifierConfig(
        name=name,
        labels=tuple(str(label) for label in model.classes_),
        encoder=encoder.identity.key(),
        hasher=recipe.hasher,
        ngram_scale=recipe.ngram_scale,
        vector_scale=recipe.vector_scale,
    )
    size = embedded.shape[1]
    kernel = coefficients.T.astype(np.float32)
    return TextClassifier(encoder, config, kernel[:size], kernel[size:], bias.astype(np.float32))


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
