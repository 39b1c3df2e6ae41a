"""Trains a classifier for labels of the user's own, out of scope included; needs the `training` extra."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from encoders.classifier import softmax
from encoders.encoder import Encoder, Vectors
from encoders.evaluation import TAXONOMY_ROWS, RowError, read_rows
from encoders.features import NgramHasher
from encoders.fitting import Recipe, best_temperature, fit, reconfigure

OOS = "oos"
# Words only: with 150 labels, character n-grams would cost several times the work; the embedding knows spelling.
RECIPE = Recipe(strength=30.0, vector_scale=4.0, ngram_scale=2.0, iterations=40, hasher=NgramHasher(buckets=8192, words=2, low=1, high=0))
_FOLDS = 3
_OOS_RECALL = 0.78
_MOST_SHARE = 0.25


def train_taxonomy(data: Path, out: Path, encoder: Encoder | None = None) -> dict[str, float | int]:
    """Fit on {text, label} rows of `data`, write one file, return sizes and cross-validated measures.

    Label `oos` marks out-of-scope texts. Raises RowError for malformed data or fewer than two labels.
    """
    rows = read_rows(data, TAXONOMY_ROWS)
    texts, labels = [row["text"] for row in rows], [row["label"] for row in rows]
    counts = Counter(label for label in labels if label != OOS)
    if len(counts) < 2 or min(counts.values()) < _FOLDS:
        raise RowError(f"{data}: needs two labels besides {OOS!r}, each with at least {_FOLDS} rows")
    used = Encoder.load() if encoder is None else encoder
    vectors = used.encode(texts)
    shares, names = _cross_validated(used, texts, labels, vectors)
    gold = np.array(labels, dtype=object)
    known = np.array([label != OOS for label in names])
    temperature = best_temperature(shares, np.array([names.index(label) for label in labels]))
    shares = softmax(np.log(np.clip(shares, 1e-12, 1.0)) / temperature)
    threshold = oos_threshold(shares[:, known].max(axis=1), gold == OOS)
    classifier = fit(used, "taxonomy", texts, labels, RECIPE, vectors=vectors)
    oos = OOS if OOS in labels or threshold else None
    final = reconfigure(classifier, temperature=temperature, oos_label=oos, oos_threshold=threshold)
    final.save(out)
    return {"rows": len(rows), "labels": len(counts)} | _measures(shares, names, gold, threshold)


def _cross_validated(
    encoder: Encoder, texts: Sequence[str], labels: Sequence[str], vectors: Vectors
) -> tuple[NDArray[np.float32], list[str]]:
    """Return the probabilities of every row from a fit that did not see it, and the labels in order."""
    names = sorted(set(labels))
    shares = np.zeros((len(texts), len(names)), dtype=np.float32)
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=0)
    for inside, outside in folds.split(texts, labels):
        part = fit(encoder, "fold", [texts[i] for i in inside], [labels[i] for i in inside], RECIPE, vectors=vectors[inside])
        columns = [names.index(label) for label in part.config.labels]
        shares[np.ix_(outside, columns)] = part.probabilities([texts[i] for i in outside], vectors[outside])
    return shares, names


def oos_threshold(best: NDArray[np.float32], outside: NDArray[np.bool_]) -> float:
    """Return the confidence below which a text is out of scope.

    It catches most of the given out-of-scope texts, without turning away more than a small share of the others;
    without any such texts it is 0.0.
    """
    if not outside.any():
        return 0.0
    wanted = float(np.quantile(best[outside], _OOS_RECALL))
    return min(wanted, float(np.quantile(best[~outside], _MOST_SHARE)))


def _measures(shares: NDArray[np.float32], names: list[str], gold: NDArray[np.object_], threshold: float) -> dict[str, float]:
    known = np.array([name != OOS for name in names])
    best = shares[:, known].max(axis=1)
    found = np.array(names, dtype=object)[shares.argmax(axis=1)]
    found[best < threshold] = OOS
    outside = gold == OOS
    report = {"in_scope_accuracy": round(float((found == gold)[~outside].mean()), 4), "oos_threshold": round(threshold, 4)}
    if outside.any():
        report["oos_recall"] = round(float((found == gold)[outside].mean()), 4)
    return report
