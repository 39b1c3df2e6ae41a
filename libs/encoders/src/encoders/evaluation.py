"""Scores rows of labelled data with the product's own code, for the suites of `strata eval`."""

import gzip
import json
import math
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from encoders import metrics
from encoders.claims import Reading, coverage
from encoders.classifier import Prediction

Row = dict[str, Any]
Check = Callable[[Any], str | None]
Progress = Callable[[int, int], None]
Indices = NDArray[np.int64]
T = TypeVar("T")


class RowError(ValueError):
    """Raised for malformed data; its one line names the file, the row and the field."""


def _text(value: Any) -> str | None:
    return None if isinstance(value, str) and value.strip() else "must be a text that is not empty"


def _flag(value: Any) -> str | None:
    return None if value in (0, 1) and not isinstance(value, float) else "must be 0 or 1"


def _texts(value: Any) -> str | None:
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return None
    return "must be a list of texts that is not empty"


def _channel(value: Any) -> str | None:
    known = ("user", "document", "tool")
    return None if value in known else f"must be one of {list(known)}, not {value!r}"


def _costs(value: Any) -> str | None:
    numbers = [item.get(key) for item in value.values() for key in ("score", "cost")] if isinstance(value, dict) else []
    good = len(numbers) > 0 and all(isinstance(number, int | float) for number in numbers)
    return None if good else "must map model names to {score, cost}"


REQUEST_CLASS_ROWS: Mapping[str, Check] = {"text": _text, "request_class": _text}
TAXONOMY_ROWS: Mapping[str, Check] = {"text": _text, "label": _text}
INJECTION_ROWS: Mapping[str, Check] = {"text": _text, "label": _flag}
SAFETY_ROWS: Mapping[str, Check] = {"text": _text, "label": _flag}
GROUNDING_ROWS: Mapping[str, Check] = {"claim": _text, "context": _texts, "label": _flag}
_OPTIONAL: Mapping[str, Check] = {"channel": _channel, "group": _text, "models": _costs}


def read_rows(path: Path, required: Mapping[str, Check], whole: Check = lambda _: None) -> list[Row]:
    """Read JSON lines, packed if the name ends in .gz; raise RowError at the first fault; `whole` looks at fields together."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise RowError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    rows: list[Row] = []
    for number, row in _parsed(path, content.splitlines(), required):
        if reason := whole(row):
            raise RowError(f"{path}: row {number}: {reason}")
        rows.append(row)
    if not rows:
        raise RowError(f"{path}: holds no rows")
    return rows


def _parsed(path: Path, lines: Sequence[bytes], required: Mapping[str, Check]) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (RecursionError, ValueError) as error:
            raise RowError(f"{path}: row {number}: is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise RowError(f"{path}: row {number}: is not an object")
        for name, check in required.items():
            if name not in row:
                raise RowError(f"{path}: row {number}: field {name!r} is missing")
            if reason := check(row[name]):
                raise RowError(f"{path}: row {number}: field {name!r} {reason}")
        for name, check in _OPTIONAL.items():
            if row.get(name) is None:
                # Tables that are written as JSON lines say `null` where a field is missing.
                row.pop(name, None)
            elif reason := check(row[name]):
                raise RowError(f"{path}: row {number}: field {name!r} {reason}")
        yield number, row


@dataclass
class Outcome(Generic[T]):
    """What came of scoring rows one by one: `rows` and `results` agree, faults are only counted."""

    rows: list[Row] = field(default_factory=list)
    results: list[T] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    invalid: int = 0

    def report(self, suite: str, versions: Mapping[str, str]) -> dict[str, Any]:
        """Return the part of the report that all suites share."""
        total = sum(self.seconds)
        return {
            "suite": suite,
            "n": len(self.rows),
            "invalid": self.invalid,
            "latency_ms": metrics.percentiles(self.seconds),
            "throughput_per_s": round(len(self.rows) / total, 2) if total else 0.0,
            "versions": dict(versions),
        }


def evaluate(rows: Sequence[Row], score: Callable[[Row], T], progress: Progress | None = None) -> Outcome[T]:
    """Score every row alone, as in service; a row whose score raises or is not a number is invalid."""
    outcome: Outcome[T] = Outcome()
    for done, row in enumerate(rows, 1):
        started = time.perf_counter()
        try:
            result = score(row)
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError):
            outcome.invalid += 1
        else:
            if isinstance(result, float) and math.isnan(result):
                outcome.invalid += 1
            else:
                outcome.seconds.append(time.perf_counter() - started)
                outcome.rows.append(row)
                outcome.results.append(result)
        if progress is not None:
            progress(done, len(rows))
    return outcome


def evaluate_routing(
    rows: Sequence[Row],
    classify: Callable[[str], Prediction],
    versions: Mapping[str, str],
    *,
    field_name: str = "request_class",
    difficulty: Callable[[Prediction], float] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Return the report of suite `routing`; `oos` and `out_of_scope` count as out of scope.

    With `difficulty`, rows that carry `models` also give `cost_at_quality`.
    """
    outcome = evaluate(rows, lambda row: classify(row["text"]), progress)
    found = np.array([prediction.label for prediction in outcome.results], dtype=object)
    gold = np.array([row[field_name] for row in outcome.rows], dtype=object)
    right = found == gold
    outside = np.isin(gold, ("oos", "out_of_scope"))
    confidence = np.array([prediction.confidence for prediction in outcome.results])
    measures: dict[str, Callable[[Indices], float | None]] = {
        "accuracy": lambda index: _mean(right[index]),
        "macro_f1": lambda index: metrics.macro_f1(list(found[index]), list(gold[index])) if len(index) else None,
        "in_scope_accuracy": lambda index: _mean(right[index][~outside[index]]),
        "oos_recall": lambda index: _mean(right[index][outside[index]]),
        "ece": lambda index: metrics.calibration_error(confidence[index], right[index]) if len(index) else None,
    }
    report = outcome.report("routing", versions) | measured(measures, len(gold))
    if difficulty is not None and outcome.rows and all("models" in row for row in outcome.rows):
        order = np.argsort([difficulty(prediction) for prediction in outcome.results], kind="stable")
        report["cost_at_quality"] = cost_at_quality([outcome.rows[index]["models"] for index in order])
    return report


def evaluate_injection(
    rows: Sequence[Row],
    score: Callable[[str, str], float],
    threshold: Callable[[str], float],
    versions: Mapping[str, str],
    *,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Return the report of suite `injection`; `score` and `threshold` know the channel."""
    outcome = evaluate(rows, lambda row: float(score(row["text"], row.get("channel", "user"))), progress)
    scores = np.array(outcome.results, dtype=np.float64)
    flagged = scores >= np.array([threshold(row.get("channel", "user")) for row in outcome.rows])
    return outcome.report("injection", versions) | _binary_report(outcome.rows, scores, flagged, _attack_measures)


def evaluate_safety(
    rows: Sequence[Row],
    judge: Callable[[str], tuple[float, bool]],
    versions: Mapping[str, str],
    *,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Return the report of suite `safety`; `judge` gives the probability that a text is unsafe and whether it is flagged."""
    outcome = evaluate(rows, lambda row: judge(row["text"]), progress)
    scores = np.array([score for score, _ in outcome.results], dtype=np.float64)
    flagged = np.array([flag for _, flag in outcome.results], dtype=np.bool_)
    return outcome.report("safety", versions) | _binary_report(outcome.rows, scores, flagged, _safety_measures)


def evaluate_grounding(
    rows: Sequence[Row],
    score: Callable[[str, Sequence[str]], float],
    threshold: float,
    versions: Mapping[str, str],
    *,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Return the report of suite `grounding`; `score` gives the probability of support.

    `overlap` judges the same rows by the share of the claim's words found in its context, at the threshold that is best for
    these very rows: what any model must beat.
    """
    outcome = evaluate(rows, lambda row: float(score(row["claim"], row["context"])), progress)
    scores = np.array(outcome.results, dtype=np.float64)
    report = _binary_report(outcome.rows, scores, scores >= threshold, _support_measures)
    return outcome.report("grounding", versions) | report | {"overlap": _overlap(outcome.rows)}


def _overlap(rows: Sequence[Row]) -> dict[str, float | None]:
    shares = np.array([coverage(Reading(row["claim"]).content, Reading(" ".join(row["context"])).content) for row in rows])
    positive = np.array([bool(row["label"]) for row in rows], dtype=np.bool_)
    found = [metrics.balanced_accuracy(shares >= at, positive) for at in np.unique(shares)]
    known = [value for value in found if value is not None]
    return {"auroc": _rounded(metrics.auroc(shares, positive)), "best_balanced_accuracy": _rounded(max(known, default=None))}


Binary = tuple[metrics.Scores, metrics.Flags, metrics.Flags]


def _attack_measures(data: Binary) -> dict[str, float | None]:
    scores, flagged, positive = data
    return {
        "recall": _mean(flagged[positive]),
        "fpr": _mean(flagged[~positive]),
        "f1": metrics.f1(flagged, positive) if positive.any() else None,
        "auroc": metrics.auroc(scores, positive),
        "recall_at_1pct_fpr": metrics.recall_at_fpr(scores, positive, 0.01),
    }


def _safety_measures(data: Binary) -> dict[str, float | None]:
    scores, flagged, positive = data
    return {
        "recall": _mean(flagged[positive]),
        "fpr": _mean(flagged[~positive]),
        "auroc": metrics.auroc(scores, positive),
        "auprc": metrics.average_precision(scores, positive),
        "recall_at_1pct_fpr": metrics.recall_at_fpr(scores, positive, 0.01),
    }


def _support_measures(data: Binary) -> dict[str, float | None]:
    scores, flagged, positive = data
    return {
        "balanced_accuracy": metrics.balanced_accuracy(flagged, positive),
        "auroc": metrics.auroc(scores, positive),
        "ece": metrics.calibration_error(scores, positive, 10) if len(scores) else None,
    }


def _binary_report(
    rows: Sequence[Row],
    scores: metrics.Scores,
    flagged: metrics.Flags,
    measures: Callable[[Binary], dict[str, float | None]],
) -> dict[str, Any]:
    positive = np.array([bool(row["label"]) for row in rows], dtype=np.bool_)
    groups = np.array([row.get("group", "all") for row in rows], dtype=object)

    def at(index: Indices | metrics.Flags) -> dict[str, float | None]:
        return measures((scores[index], flagged[index], positive[index]))

    names = list(at(np.zeros(0, dtype=np.int64)))
    report = measured({name: lambda index, name=name: at(index)[name] for name in names}, len(rows))  # type: ignore[misc]
    report["groups"] = {
        str(name): {"n": int((groups == name).sum())} | {key: _rounded(value) for key, value in at(groups == name).items()}
        for name in sorted(set(groups))
    }
    return report


def cost_at_quality(ordered: Sequence[Mapping[str, Mapping[str, float]]], share: float = 0.95) -> dict[str, Any]:
    """Return what reaching `share` of the best model's quality costs, from easy to hard requests.

    Requests come ordered by difficulty; the hardest go to the best model, the others to the cheapest.
    """
    names = sorted({name for models in ordered for name in models})
    quality = {name: _mean(np.array([models[name]["score"] for models in ordered])) or 0.0 for name in names}
    price = {name: _mean(np.array([models[name]["cost"] for models in ordered])) or 0.0 for name in names}
    weak, strong = min(names, key=price.__getitem__), max(names, key=quality.__getitem__)
    for sent in range(len(ordered) + 1):
        chosen = [weak if place < len(ordered) - sent else strong for place in range(len(ordered))]
        reached = np.mean([models[name]["score"] for models, name in zip(ordered, chosen, strict=True)])
        if reached >= share * quality[strong]:
            break
    cost = float(np.sum([models[name]["cost"] for models, name in zip(ordered, chosen, strict=True)]))
    full = float(np.sum([models[strong]["cost"] for models in ordered]))
    return {
        "quality": share,
        "weak": weak,
        "strong": strong,
        "share_to_strong": round(sent / len(ordered), 4),
        "cost_share": round(cost / full, 4) if full else None,
    }


def measured(measures: Mapping[str, Callable[[Indices], float | None]], size: int) -> dict[str, Any]:
    """Return every measure on all rows, and its bootstrap interval under `intervals`."""
    everything = np.arange(size, dtype=np.int64)
    report: dict[str, Any] = {name: _rounded(measure(everything)) for name, measure in measures.items()}
    intervals = {name: metrics.bootstrap_interval(measure, size) for name, measure in measures.items()}
    report["intervals"] = {name: [_rounded(bound) for bound in found] if found else None for name, found in intervals.items()}
    return report


def _mean(values: NDArray[Any]) -> float | None:
    return float(values.mean()) if len(values) else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def lines(report: Mapping[str, Any]) -> Iterable[str]:
    """Yield one readable line per headline figure of a report."""
    for name, bounds in report["intervals"].items():
        spread = "" if bounds is None else f"  [{bounds[0]}, {bounds[1]}]"
        yield f"{name}: {report[name]}{spread}"
