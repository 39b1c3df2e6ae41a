"""Outcomes by declared group: rates with intervals, groups that are too small left out, and whether a difference is more than chance."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fairlearn.metrics import MetricFrame, count, false_positive_rate, selection_rate, true_positive_rate
from scipy.stats import chi2

# A group below this size says more about its members than about the product.
SMALLEST_GROUP = 30
# Below the five percent of false alarms that are allowed, because counts are not continuous.
ALPHA = 0.045
_DRAWS = 2000
_METRICS = {"flag_rate": selection_rate, "recall": true_positive_rate, "false_positive_rate": false_positive_rate}
_NEEDS_LABEL: Mapping[str, int | None] = {"flag_rate": None, "recall": 1, "false_positive_rate": 0}


@dataclass(frozen=True)
class Outcome:
    """What became of one case: whether it was flagged, its declared groups by attribute, and what would have been right."""

    flagged: bool
    groups: Mapping[str, str]
    label: int | None = None


def read(path: Path) -> list[Outcome]:
    """Read lines of `{flagged, groups: {attribute: group}, label?}`; raise ValueError that names the line."""
    outcomes = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            flagged, groups, label = row["flagged"], row["groups"], row.get("label")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: row {number}: {error!r}") from error
        if flagged not in (0, 1) or label not in (0, 1, None):
            raise ValueError(f"{path}: row {number}: fields 'flagged' and 'label' must be 0 or 1")
        if not isinstance(groups, dict) or not groups or not all(isinstance(name, str) for name in groups.values()):
            raise ValueError(f"{path}: row {number}: field 'groups' must map attributes to names")
        outcomes.append(Outcome(bool(flagged), groups, label))
    if not outcomes:
        raise ValueError(f"{path}: no rows")
    return outcomes


def report(outcomes: Sequence[Outcome], *, seed: int = 0) -> dict[str, Any]:
    """Return each attribute's rates by group, their largest difference, and the differences that are more than chance.

    Alarms keep the chance of any false one at five percent over all attributes and metrics (Holm).
    """
    rng = np.random.default_rng(seed)
    attributes = sorted({name for outcome in outcomes for name in outcome.groups})
    tables = {name: _attribute([o for o in outcomes if name in o.groups], name, rng) for name in attributes}
    tested = [(metric["p_value"], name, key) for name, table in tables.items() for key, metric in table.items() if metric["p_value"] < 1]
    alarms = _holm(sorted(tested))
    for name, table in tables.items():
        for key, metric in table.items():
            metric["alarm"] = (name, key) in alarms
    return {"n": len(outcomes), "alpha": ALPHA, "smallest_group": SMALLEST_GROUP, "attributes": tables}


def _holm(tested: Sequence[tuple[float, str, str]]) -> set[tuple[str, str]]:
    alarms: set[tuple[str, str]] = set()
    for rank, (p_value, name, key) in enumerate(tested):
        if p_value > ALPHA / (len(tested) - rank):
            break
        alarms.add((name, key))
    return alarms


def _attribute(outcomes: Sequence[Outcome], name: str, rng: np.random.Generator) -> dict[str, dict[str, Any]]:
    table = {}
    for key, demanded in _NEEDS_LABEL.items():
        chosen = [o for o in outcomes if demanded is None or o.label == demanded]
        if chosen:
            table[key] = _metric(chosen, name, key, rng)
    return table


def _metric(outcomes: Sequence[Outcome], name: str, key: str, rng: np.random.Generator) -> dict[str, Any]:
    groups = np.array([outcome.groups[name] for outcome in outcomes])
    flagged = np.array([outcome.flagged for outcome in outcomes], dtype=int)
    truth = np.array([1 if outcome.label is None else outcome.label for outcome in outcomes])
    frame = MetricFrame(metrics={"n": count, "rate": _METRICS[key]}, y_true=truth, y_pred=flagged, sensitive_features=groups)
    sizes = {str(group): int(n) for group, n in frame.by_group["n"].items()}
    kept = [group for group, n in sizes.items() if n >= SMALLEST_GROUP]
    rates = {group: float(frame.by_group["rate"][group]) for group in kept}
    draws = {group: rng.binomial(sizes[group], rates[group], _DRAWS) / sizes[group] for group in kept}
    result: dict[str, Any] = {
        "groups": {g: {"n": sizes[g], "rate": round(rates[g], 4), "interval": _interval(draws[g])} for g in kept},
        "suppressed": len(sizes) - len(kept),
        "disparity": 0.0,
        "interval": None,
        "p_value": 1.0,
    }
    if len(kept) > 1:
        all_draws = np.stack(list(draws.values()))
        result["disparity"] = round(max(rates.values()) - min(rates.values()), 4)
        result["interval"] = _interval(all_draws.max(axis=0) - all_draws.min(axis=0))
        n = np.array([sizes[group] for group in kept])
        result["p_value"] = float(p_values(np.round(n * np.array(list(rates.values()))), n))
    return result


def p_values(flagged: "np.ndarray[Any, Any]", sizes: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """Return the probability of such differences between groups where there are none (Pearson's chi-square, uncorrected).

    `flagged` and `sizes` have shape (..., groups); the result has shape (...).
    """
    pooled = flagged.sum(axis=-1, keepdims=True) / sizes.sum(axis=-1, keepdims=True)
    spread = pooled * (1 - pooled) / sizes
    gaps = (flagged / sizes - pooled) ** 2
    # Where all or none are flagged there is no difference.
    statistic = np.divide(gaps, spread, out=np.zeros_like(gaps), where=spread > 0).sum(axis=-1)
    return np.asarray(chi2.sf(statistic, flagged.shape[-1] - 1))


def _interval(draws: "np.ndarray[Any, Any]") -> list[float]:
    low, high = np.quantile(draws, (0.025, 0.975))
    return [round(float(low), 4), round(float(high), 4)]
