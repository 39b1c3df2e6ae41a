"""The suites `pii`, `injection`, `safety` and `grounding` of `strata eval`, over the very checks that serve."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from chassis.settings import load as load_settings
from encoders import evaluation as runner
from encoders import metrics
from guardrail.checks import Parts
from guardrail.checks.addressing import AddressingCheck
from guardrail.checks.base import Answer, Conversation, Piece, Source
from guardrail.checks.grounding import GroundingCheck
from guardrail.checks.injection import InjectionCheck
from guardrail.checks.safety import SafetyInputCheck
from guardrail.personal.detection import Mention, Quasi, Reading
from guardrail.settings import Settings

# What a data set calls a thing, and what the product does; other names are compared as they are.
_ALIASES: Mapping[str, str] = {
    "NAME": "PERSON", "TITLE": "PERSON", "PREFIX": "PERSON", "STREET_ADDRESS": "ADDRESS", "ZIP_CODE": "ADDRESS",
    "GPE": "LOCATION", "GEOGRAPHIC_LOCATION": "LOCATION", "FACILITY": "LOCATION", "DATE_TIME": "DATE",
    "BIRTH_DATE": "DATE", "DATE_PART": "DATE",
    "OLD_AGE": "AGE", "NRP": "NATIONALITY", "DOMAIN_NAME": "URL",
    "CREDIT_CARD": "CARD", "PHONE_NUMBER": "PHONE", "FAX_NUMBER": "PHONE", "EMAIL_ADDRESS": "EMAIL", "US_SSN": "SSN",
    "SOCIAL_SECURITY_NUMBER": "SSN", "MEDICAL_RECORD_NUMBER": "MRN", "HEALTH_PLAN_BENEFICIARY_NUMBER": "HEALTH_PLAN", "IBAN_CODE": "IBAN",
    "IP_ADDRESS": "IP", "ACCOUNT_NUMBER": "ACCOUNT", "UNIQUE_IDENTIFIER": "ACCOUNT", "US_DRIVER_LICENSE": "LICENCE",
}  # fmt: skip
_FOUND_SHARE = 0.5
# From here on orchestrator leaves a passage out (`STRATA_ORCHESTRATOR_PASSAGE_DROP_SCORES`).
PASSAGE_DROP_SCORE = 0.977


def injection(data: Path, *, options: dict[str, str]) -> dict[str, object]:
    """Score attacks by what serves each channel: the trained head, for data also the rules; raise ValueError for malformed data.

    Option `drop_score` is the score from which a passage is left out.
    """
    parts = Parts(_settings(options))
    check, rules = InjectionCheck(parts.injection, parts.reader, parts.settings.check_budget_ms), AddressingCheck()
    thresholds = {**parts.injection.thresholds, "document": float(options.get("drop_score", PASSAGE_DROP_SCORE))}
    rows = runner.read_rows(data, runner.INJECTION_ROWS)

    def score(text: str, channel: str) -> float:
        piece = Piece(channel, text)
        return 1.0 if rules.run(Conversation((piece,))).flagged else check.judge(piece, channel)[0]

    return runner.evaluate_injection(
        rows,
        score,
        thresholds.__getitem__,
        _versions(injection=check.version, addressing=rules.version, drop_score=str(thresholds["document"])),
    )


def safety(data: Path, *, options: dict[str, str]) -> dict[str, object]:
    """Score unsafe texts by the safety check; raise ValueError for malformed data."""
    parts = Parts(_settings(options))
    check = SafetyInputCheck(parts.safety, parts.reader, parts.settings.safety_blocked, parts.settings.check_budget_ms)
    rows = runner.read_rows(data, runner.SAFETY_ROWS)

    def judge(text: str) -> tuple[float, bool]:
        found = check.judge(text)
        return found.probability, found.flagged

    return runner.evaluate_safety(rows, judge, _versions(safety=check.version))


def grounding(data: Path, *, options: dict[str, str]) -> dict[str, object]:
    """Score claims by the grounding check's own judgement; raise ValueError for malformed data."""
    parts = Parts(_settings(options))
    check = GroundingCheck(parts.scorer, parts.settings.check_budget_ms, threshold=parts.settings.grounding_threshold)
    rows = runner.read_rows(data, runner.GROUNDING_ROWS)
    return runner.evaluate_grounding(
        rows,
        lambda claim, context: _support(check, claim, context),
        check.threshold,
        _versions(grounding=check.version),
    )


def _support(check: GroundingCheck, claim: str, context: Sequence[str]) -> float:
    """Return the support of a claim as a whole: one row is one claim, whatever its sentences."""
    sources = tuple(Source(str(number), text) for number, text in enumerate(context, 1))
    return check.judge(Answer(claim, sources=sources).text, sources)[0]


def pii(data: Path, *, options: dict[str, str]) -> dict[str, object]:
    """Score what the detector reports, and beside it what it would replace in a prompt; option `quasi` overrides both policies."""
    parts = Parts(_settings(options))
    rows = runner.read_rows(data, {"text": _text, "spans": _spans}, _within)
    outcome = runner.evaluate(rows, lambda row: _read(parts, row))
    readings = list(zip(outcome.rows, outcome.results, strict=True))
    reported, replaced = parts.settings.pii_reported, parts.settings.pii_quasi
    report: dict[str, object] = outcome.report("pii", _versions(policy=f"reported={reported}, quasi={replaced}"))
    report |= _measures([_count(row["text"], _gold(row), reading.reported) for row, reading in readings])
    # The prompt keeps places, days and ages that stand alone, because retrieval and tools need them.
    in_prompt = _measures([_count(row["text"], _gold(row), reading.replaced) for row, reading in readings])
    report["replaced_in_prompt"] = {name: in_prompt[name] for name in _FIGURES}
    return report


def _read(parts: Parts, row: runner.Row) -> Reading:
    if any(span["start"] is None for span in row["spans"]):
        raise LookupError("where a span stands is not known: the row cannot be scored")
    return parts.detector.read(row["text"])


def _measures(counts: Sequence["_Count"]) -> dict[str, object]:
    report: dict[str, object] = {}
    totals = np.array([c.numbers for c in counts], dtype=np.float64).reshape(-1, len(_NAMES))
    intervals = {}
    for name in _FIGURES:
        report[name] = _rounded(_measure(totals, name))
        bounds = metrics.bootstrap_interval(lambda index, name=name: _measure(totals[index], name), len(totals))  # type: ignore[misc]
        intervals[name] = [_rounded(bound) for bound in bounds] if bounds else None
    report["intervals"] = intervals
    report["types"] = _per_type(counts)
    return report


_FIGURES = ("precision", "recall", "f2", "leak_rate", "harmless_touched")
_NAMES = ("gold", "found", "predicted", "right", "characters", "leaked", "harmless", "touched")


class _Count:
    """What one row adds to the totals."""

    def __init__(self, numbers: Sequence[int], types: Sequence[tuple[str, bool, bool]]) -> None:
        self.numbers = tuple(numbers)
        self.types = tuple(types)


def _count(text: str, gold: Sequence[Mention], found: Sequence[Mention]) -> _Count:
    types = []
    for span in gold:
        share = _overlap(span, found) / (span.end - span.start)
        same = [m for m in found if _overlap(span, [m]) and _name(m.type) == _name(span.type)]
        types.append((span.type, share >= _FOUND_SHARE, bool(same) and share >= _FOUND_SHARE))
    right = sum(_overlap(m, gold) >= _FOUND_SHARE * (m.end - m.start) for m in found)
    leaked = sum(not c.isspace() and not any(m.start <= i < m.end for m in found) for span in gold for i, c in _characters(text, span))
    characters = sum(not c.isspace() for span in gold for _, c in _characters(text, span))
    hits = sum(hit for _, hit, _ in types)
    return _Count((len(gold), hits, len(found), right, characters, leaked, int(not gold), int(not gold and bool(found))), types)


def _characters(text: str, span: Mention) -> list[tuple[int, str]]:
    return list(enumerate(text[span.start : span.end], span.start))


def _overlap(span: Mention, others: Sequence[Mention]) -> int:
    return sum(max(0, min(span.end, m.end) - max(span.start, m.start)) for m in others)


def _name(kind: str) -> str:
    return _ALIASES.get(kind, kind)


def _measure(totals: np.ndarray[Any, Any], name: str) -> float | None:
    gold, found, predicted, right, characters, leaked, harmless, touched = totals.sum(axis=0)
    if name == "leak_rate":
        return leaked / characters if characters else None
    if name == "harmless_touched":
        return touched / harmless if harmless else None
    precision = right / predicted if predicted else None
    recall = found / gold if gold else None
    if name != "f2":
        return precision if name == "precision" else recall
    if precision is None or recall is None:
        return None
    return 5 * precision * recall / (4 * precision + recall) if precision + recall else 0.0


def _per_type(counts: Sequence[_Count]) -> dict[str, dict[str, float | int | None]]:
    names = sorted({kind for count in counts for kind, _, _ in count.types})
    table: dict[str, dict[str, float | int | None]] = {}
    for name in names:
        hits = [(hit, same) for count in counts for kind, hit, same in count.types if kind == name]
        total = len(hits)
        table[name] = {
            "n": total,
            "recall": _rounded(sum(h for h, _ in hits) / total),
            "recall_of_the_same_type": _rounded(sum(s for _, s in hits) / total),
        }
    return table


def _gold(row: Mapping[str, Any]) -> list[Mention]:
    return [Mention(span["start"], span["end"], span["type"]) for span in row["spans"]]


def _text(value: object) -> str | None:
    return None if isinstance(value, str) and value.strip() else "must be a text that is not empty"


def _spans(value: object) -> str | None:
    if not isinstance(value, list):
        return "must be a list of {start, end, type}"
    for number, span in enumerate(value):
        if not isinstance(span, dict) or not isinstance(span.get("type"), str):
            return f"[{number}] must be an object with start, end and type"
        start, end = span.get("start"), span.get("end")
        # Whoever labelled the text named a value that is not in it, letter by letter.
        unplaced = start is None and end is None and "start" in span
        if not unplaced and not (isinstance(start, int) and isinstance(end, int) and 0 <= start < end):
            return f"[{number}] must have 0 <= start < end"
    return None


def _within(row: Mapping[str, Any]) -> str | None:
    beyond = [number for number, span in enumerate(row["spans"]) if (span["end"] or 0) > len(row["text"])]
    return f"field 'spans'[{beyond[0]}] ends beyond the text, which has {len(row['text'])} characters" if beyond else None


def _settings(options: Mapping[str, str]) -> Settings:
    settings = load_settings(Settings)
    if quasi := options.get("quasi"):
        if quasi not in get_args(Quasi):
            raise ValueError(f"option 'quasi' is {quasi!r}; known: {get_args(Quasi)}")
        return settings.model_copy(update={"pii_quasi": quasi, "pii_reported": "always" if quasi == "always" else "linked"})
    return settings


def _versions(**own: str) -> dict[str, str]:
    return {"guardrail": "0.1.0", **own}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 4)
