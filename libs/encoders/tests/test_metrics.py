"""Measures against values worked out by hand."""

import numpy as np
import pytest

from encoders import metrics


def test_auroc_counts_ties_as_half() -> None:
    """Two pairs right, one tied, one wrong make five eighths."""
    scores, positive = np.array([0.9, 0.4, 0.4, 0.5]), np.array([True, True, False, False])

    assert metrics.auroc(scores, positive) == pytest.approx(2.5 / 4)
    assert metrics.auroc(scores, np.ones(4, dtype=bool)) is None


def test_the_threshold_keeps_the_false_positive_rate() -> None:
    """At most one in a hundred negatives reaches it."""
    scores = np.concatenate([np.linspace(0, 1, 200), [2.0, 0.5]])
    positive = np.arange(202) >= 200

    threshold = metrics.threshold_at_fpr(scores, positive, 0.01)
    assert (scores[~positive] >= threshold).mean() <= 0.01
    assert metrics.recall_at_fpr(scores, positive, 0.01) == 0.5


def test_calibration_error_is_the_gap_of_confidence_and_accuracy() -> None:
    """Ninety percent sure and right half the time is off by forty points."""
    assert metrics.calibration_error(np.full(10, 0.9), np.arange(10) < 5) == pytest.approx(0.4)


def test_macro_f1_weighs_labels_alike() -> None:
    """A label never found counts zero."""
    assert metrics.macro_f1(["a", "a", "a"], ["a", "a", "b"]) == pytest.approx(0.4)


def test_bootstrap_interval_holds_the_mean() -> None:
    """The interval surrounds the measured value and is reproducible."""
    right = np.arange(100) < 80
    low, high = metrics.bootstrap_interval(lambda index: float(right[index].mean()), 100) or (1.0, 0.0)

    assert low < 0.8 < high
    assert (low, high) == metrics.bootstrap_interval(lambda index: float(right[index].mean()), 100)
    assert metrics.bootstrap_interval(lambda _index: None, 100) is None


def test_average_precision_takes_ties_together() -> None:
    """A perfect order gives one, equal scores give the share of positives, no positive gives None."""
    positive = np.array([True, False, True, False])

    assert metrics.average_precision(np.array([0.9, 0.1, 0.8, 0.2]), positive) == 1.0
    assert metrics.average_precision(np.full(4, 0.5), positive) == 0.5
    assert metrics.average_precision(np.full(4, 0.5), np.zeros(4, dtype=np.bool_)) is None
