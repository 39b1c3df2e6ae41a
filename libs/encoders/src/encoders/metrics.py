"""The measures that evaluation suites and model cards report, in numpy."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Flags = NDArray[np.bool_]
Scores = NDArray[np.float64]

_RESAMPLES = 500


def auroc(scores: Scores, positive: Flags) -> float | None:
    """Return the chance that a positive outscores a negative, ties half; None without both kinds."""
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return None
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks = (ends - (counts - 1) / 2)[inverse]
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def average_precision(scores: Scores, positive: Flags) -> float | None:
    """Return the area under the precision-recall curve, ties taken together; None without any positive."""
    positives = int(positive.sum())
    if not positives:
        return None
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(positive[order])
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    precision = hits[ends] / (ends + 1)
    gained = np.diff(hits[ends], prepend=0)
    return float((precision * gained).sum() / positives)


def threshold_at_fpr(scores: Scores, positive: Flags, fpr: float) -> float:
    """Return the lowest threshold (flag if score >= it) whose false-positive rate is at most `fpr`."""
    negatives = np.sort(scores[~positive])[::-1]
    if not len(negatives):
        return float(scores.min())
    allowed = int(np.floor(fpr * len(negatives)))
    return float(np.nextafter(negatives[min(allowed, len(negatives) - 1)], np.inf))


def recall_at_fpr(scores: Scores, positive: Flags, fpr: float) -> float | None:
    """Return the share of positives flagged at a false-positive rate of at most `fpr`."""
    if not positive.any() or positive.all():
        return None
    return float((scores[positive] >= threshold_at_fpr(scores, positive, fpr)).mean())


def balanced_accuracy(flagged: Flags, positive: Flags) -> float | None:
    """Return the mean of recall and specificity; None without both kinds."""
    if not positive.any() or positive.all():
        return None
    return float((flagged[positive].mean() + (~flagged[~positive]).mean()) / 2)


def f1(flagged: Flags, positive: Flags) -> float:
    """Return the harmonic mean of precision and recall; 0.0 without any hit."""
    hits = int((flagged & positive).sum())
    return 2 * hits / max(1, int(flagged.sum()) + int(positive.sum()))


def macro_f1(found: Sequence[str], expected: Sequence[str]) -> float:
    """Return the mean of the F1 of every expected label."""
    predicted, gold = np.array(found, dtype=object), np.array(expected, dtype=object)
    return float(np.mean([f1(predicted == label, gold == label) for label in sorted(set(expected))]))


def calibration_error(confidence: Scores, correct: Flags, bins: int = 15) -> float:
    """Return the expected calibration error over equally wide bins of confidence."""
    slots = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(confidence[slots == slot].mean() - correct[slots == slot].mean()) * (slots == slot).mean() for slot in np.unique(slots)]
    return float(sum(gaps))


def bootstrap_interval(measure: Callable[[NDArray[np.int64]], float | None], size: int, seed: int = 7) -> tuple[float, float] | None:
    """Return the 95 % interval of `measure`, which takes the indices of one resample of `size` rows."""
    chance = np.random.default_rng(seed)
    values = [measure(chance.integers(0, size, size)) for _ in range(_RESAMPLES)] if size else []
    known = [value for value in values if value is not None]
    if not known:
        return None
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Return p50, p95 and p99 in milliseconds."""
    if not seconds:
        return {"p50": 0.0, "p95": 0.0, "p99": 0.0}
    found = np.percentile(np.array(seconds) * 1000, [50, 95, 99])
    return {name: round(float(value), 3) for name, value in zip(("p50", "p95", "p99"), found, strict=True)}
