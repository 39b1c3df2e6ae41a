"""Suites on rows whose right answer is known, and what malformed rows cause."""

import json
from pathlib import Path

import pytest

from encoders import Prediction
from encoders.evaluation import (
    GROUNDING_ROWS,
    INJECTION_ROWS,
    REQUEST_CLASS_ROWS,
    RowError,
    cost_at_quality,
    evaluate_grounding,
    evaluate_injection,
    evaluate_routing,
    lines,
    read_rows,
)
from encoders.guard import Guard


def write(path: Path, rows: list[object]) -> Path:
    """Write rows as JSON lines."""
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "a"}, r"rows.jsonl: row 2: field 'label' is missing"),
        ({"text": "a", "label": 3}, r"rows.jsonl: row 2: field 'label' must be 0 or 1"),
        ({"text": "", "label": 1}, r"rows.jsonl: row 2: field 'text' must be a text"),
        ({"text": "a", "label": 1, "channel": "fax"}, r"row 2: field 'channel' must be one of .*'fax'"),
        ([1], r"row 2: is not an object"),
    ],
)
def test_a_malformed_row_is_named(tmp_path: Path, row: object, message: str) -> None:
    """File, row and field stand in one line."""
    path = write(tmp_path / "rows.jsonl", [{"text": "fine", "label": 0}, row])

    with pytest.raises(RowError, match=message) as caught:
        read_rows(path, INJECTION_ROWS)
    assert "\n" not in str(caught.value)


def test_broken_json_and_missing_or_empty_files_are_named(tmp_path: Path) -> None:
    """Nothing escapes as a traceback."""
    path = tmp_path / "rows.jsonl"
    path.write_text('{"claim": \n')
    with pytest.raises(RowError, match="row 1: is not JSON"):
        read_rows(path, GROUNDING_ROWS)
    path.write_text("\n")
    with pytest.raises(RowError, match="holds no rows"):
        read_rows(path, GROUNDING_ROWS)
    with pytest.raises(RowError, match="cannot be read"):
        read_rows(tmp_path / "absent.jsonl", GROUNDING_ROWS)


def test_optional_fields_may_be_null(tmp_path: Path) -> None:
    """A field that is null counts as missing."""
    rows = read_rows(write(tmp_path / "rows.jsonl", [{"text": "hello", "label": 0, "channel": None, "group": None}]), INJECTION_ROWS)

    assert rows == [{"text": "hello", "label": 0}]


def test_what_is_nested_too_deeply_is_named(tmp_path: Path) -> None:
    """A row that no parser takes is one clear line, whatever the reason."""
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a", "label": 0, "x": ' + "[" * 100_000 + "]" * 100_000 + "}")

    with pytest.raises(RowError, match="row 1: is not JSON"):
        read_rows(path, INJECTION_ROWS)


def test_half_a_character_is_an_invalid_row(guard: Guard) -> None:
    """What no tokeniser takes is counted as not scored."""
    report = evaluate_injection(
        [{"text": "half \ud83d of it", "label": 0}, {"text": "hello", "label": 0}],
        lambda text, _: float(guard.encode([text])[0, 0]),
        lambda _: 0.5,
        {},
    )

    assert (report["n"], report["invalid"]) == (1, 1)


def test_injection_report_counts_groups_and_faults() -> None:
    """A row that cannot be scored is invalid, neither right nor wrong."""
    rows = [
        {"text": "attack", "label": 1, "group": "a"},
        {"text": "missed attack", "label": 1, "group": "b"},
        {"text": "calm", "label": 0, "group": "b", "channel": "document"},
        {"text": "broken", "label": 1, "group": "b"},
    ]

    def score(text: str, channel: str) -> float:
        if text == "broken":
            raise ValueError(text)
        return {"attack": 0.9, "missed attack": 0.2, "calm": 0.1 if channel == "document" else 0.95}[text]

    report = evaluate_injection(rows, score, lambda _: 0.5, {"detector": "v1"})

    assert (report["n"], report["invalid"]) == (3, 1)
    assert (report["recall"], report["fpr"], report["auroc"]) == (0.5, 0.0, 1.0)
    assert report["groups"]["a"]["recall"] == 1.0
    assert report["groups"]["b"]["recall"] == 0.0
    assert set(report["intervals"]) >= {"recall", "fpr", "f1", "auroc"}
    assert report["versions"] == {"detector": "v1"}
    assert report["latency_ms"]["p99"] >= report["latency_ms"]["p50"]
    json.dumps(report)


def test_routing_report_separates_out_of_scope() -> None:
    """Accuracy counts every row; out-of-scope recall only those rows."""
    rows = [{"text": text, "request_class": text} for text in ("a", "b", "b", "out_of_scope")]

    report = evaluate_routing(rows, lambda text: Prediction("a" if text == "a" else "out_of_scope", 0.8, {}), {})

    assert report["accuracy"] == 0.5
    assert report["oos_recall"] == 1.0
    assert report["in_scope_accuracy"] == pytest.approx(0.3333)
    assert report["ece"] == pytest.approx(0.3)
    assert any(line.startswith("accuracy: 0.5  [") for line in lines(report))


def test_cost_at_quality_buys_only_what_it_needs() -> None:
    """Only the hard request goes to the strong model."""
    easy = {"small": {"score": 1, "cost": 1}, "large": {"score": 1, "cost": 10}}
    hard = {"small": {"score": 0, "cost": 1}, "large": {"score": 1, "cost": 10}}

    found = cost_at_quality([easy, easy, easy, hard])

    assert (found["weak"], found["strong"], found["share_to_strong"]) == ("small", "large", 0.25)
    assert found["cost_share"] == pytest.approx(13 / 40)


def test_grounding_report_needs_both_answers() -> None:
    """With one kind of row only, measures that need two are null, not zero."""
    rows = [{"claim": "c", "context": ["p"], "label": 1}]

    report = evaluate_grounding(rows, lambda _claim, _context: 0.7, 0.5, {})

    assert report["balanced_accuracy"] is None
    assert report["auroc"] is None
    assert report["n"] == 1


def test_grounding_report_stands_beside_word_overlap() -> None:
    """The share of the claim's words in the context, at its best threshold, is what a model must beat."""
    rows = [
        {"claim": "red apples grow", "context": ["red apples", "grow here"], "label": 1, "group": "a"},
        {"claim": "red apples fall", "context": ["green pears stay"], "label": 0, "group": "b"},
    ]

    report = evaluate_grounding(rows, lambda _claim, context: float(len(context) == 1), 0.5, {})

    assert report["overlap"] == {"auroc": 1.0, "best_balanced_accuracy": 1.0}
    assert report["balanced_accuracy"] == 0.0
    assert report["groups"]["a"]["n"] == 1


def test_request_class_rows_need_a_class(tmp_path: Path) -> None:
    """The routing suite names the missing field."""
    with pytest.raises(RowError, match="field 'request_class' is missing"):
        read_rows(write(tmp_path / "rows.jsonl", [{"text": "hello"}]), REQUEST_CLASS_ROWS)
