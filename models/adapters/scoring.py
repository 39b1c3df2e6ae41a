"""Score replies against held-out rows: fields of a JSON object, or citations and abstention of an answer."""

import json
import random
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from answer_rows import content
from rows import ABSTAIN, Row, words

FIELDS = ("age", "sex", "chief_complaints", "absent_findings", "duration")
_CITATION = re.compile(r"\[(\d+)\]")


def overlap_f1(left: Sequence[Any], right: Sequence[Any]) -> float:
    """Return the F1 of two bags of items; two empty bags agree."""
    if not left and not right:
        return 1.0
    common = sum((Counter(left) & Counter(right)).values())
    return 2 * common / (len(left) + len(right))


def parse_object(text: str) -> dict[str, Any] | None:
    """Read the first JSON object of a reply, also from inside a code fence; None when there is none."""
    start = text.find("{")
    if start < 0:
        return None
    try:
        found, _ = json.JSONDecoder().raw_decode(text[start:])
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _field(value: Any) -> list[str]:
    if isinstance(value, list):
        return [re.sub(r"\W+", " ", str(item).lower()).strip() for item in value]
    return [] if value is None else [re.sub(r"\W+", " ", str(value).lower()).strip()]


def score_extraction(row: Row, reply: str) -> dict[str, float | None]:
    """Score one JSON reply; `success` is the mean F1 over the five fields."""
    wanted = json.loads(row.target)
    found = parse_object(reply)
    try:
        strict = isinstance(json.loads(reply), dict)
    except ValueError:
        strict = False
    scores: dict[str, float | None] = {"valid_json": float(strict), "json_found": float(found is not None)}
    for name in FIELDS:
        got = _field(found.get(name)) if found is not None else None
        scores[f"f1_{name}"] = 0.0 if got is None else overlap_f1(got, _field(wanted[name]))
    scores["success"] = sum(scores[f"f1_{name}"] or 0.0 for name in FIELDS) / len(FIELDS)
    return scores


def rouge_l(candidate: str, reference: str) -> float:
    """Return the F-measure of the longest common subsequence of words."""
    left, right = words(candidate), words(reference)
    if not left or not right:
        return float(left == right)
    line = [0] * (len(right) + 1)
    for word in left:
        previous = 0
        for index, other in enumerate(right, start=1):
            kept = line[index]
            line[index] = previous + 1 if word == other else max(line[index], line[index - 1])
            previous = kept
    return 2 * line[-1] / (len(left) + len(right))


def score_answer(row: Row, reply: str) -> dict[str, float | None]:
    """Score one cited answer; None marks what does not apply to the row.

    `success` is ROUGE-L where the right passage and no other is cited, and 1 for a wanted abstention.
    """
    abstained = ABSTAIN.lower().rstrip(".") in reply.lower()
    if not row.gold:
        return {
            "abstains_when_unanswerable": float(abstained),
            "answers_when_answerable": None,
            "citation_correct": None,
            "grounded": None,
            "rouge_l": None,
            "success": float(abstained),
        }
    cited = {int(number) for number in _CITATION.findall(reply)}
    shown = {p["n"]: content(f"{p['title']} {p['text']}") for p in row.variables["passages"]}
    plain = _CITATION.sub("", reply)
    said = content(plain)
    support = set().union(*(shown.get(number, set()) for number in cited)) if cited else set()
    correct = float(cited == set(row.gold))
    overlap = rouge_l(plain, _CITATION.sub("", row.target))
    return {
        "abstains_when_unanswerable": None,
        "answers_when_answerable": float(not abstained),
        "citation_correct": correct,
        "grounded": len(said & support) / len(said) if said else 0.0,
        "rouge_l": overlap,
        "success": overlap * correct,
    }


def score(name: str, row: Row, reply: str) -> dict[str, float | None]:
    """Score `reply` with the measure of adapter `name`."""
    return score_extraction(row, reply) if name.startswith("symptom-extract") else score_answer(row, reply)


def mean_of(rows: list[dict[str, float | None]], metric: str) -> float:
    """Return the mean of a metric over the rows that it applies to."""
    values = [value for row in rows if (value := row[metric]) is not None]
    return sum(values) / len(values) if values else 0.0


def interval(values: list[float], *, draws: int = 2000, seed: int = 7) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean."""
    rng = random.Random(seed)
    means = sorted(sum(rng.choices(values, k=len(values))) / len(values) for _ in range(draws))
    return means[int(0.025 * draws)], means[int(0.975 * draws) - 1]


def compare(base: list[dict[str, float | None]], adapter: list[dict[str, float | None]]) -> dict[str, Any]:
    """Return means of both, and paired intervals of each metric's margin."""
    found: dict[str, Any] = {}
    for metric in adapter[0]:
        pairs = [(b, a) for b, a in ((x[metric], y[metric]) for x, y in zip(base, adapter, strict=True)) if b is not None and a is not None]
        if not pairs:
            continue
        low, high = interval([a - b for b, a in pairs])
        found[metric] = {
            "n": len(pairs),
            "base": round(mean_of(base, metric), 3),
            "base_interval": [round(x, 3) for x in interval([b for b, _ in pairs])],
            "adapter": round(mean_of(adapter, metric), 3),
            "adapter_interval": [round(x, 3) for x in interval([a for _, a in pairs])],
            "margin": round(mean_of(adapter, metric) - mean_of(base, metric), 3),
            "margin_interval": [round(low, 3), round(high, 3)],
        }
    return found
