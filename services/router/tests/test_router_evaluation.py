"""The suite `routing` and the training of a company's own labels."""

import json
from pathlib import Path

import pytest

from encoders.taxonomy import train_taxonomy
from router.evaluation import routing

ROOT = Path(__file__).parents[3]


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    """Write rows as JSON lines."""
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_request_classes_are_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report holds the headline figures, intervals, latency and versions."""
    monkeypatch.setenv("STRATA_HOME", str(ROOT))
    rows = [
        {"text": "Where is my package?", "request_class": "tool_workflow"},
        {"text": "Prove that there are infinitely many primes.", "request_class": "high_ambiguity_reasoning"},
        {"text": "What is my account balance?", "request_class": "simple_lookup"},
    ]
    report = routing(write(tmp_path / "rows.jsonl", rows), options={})
    assert report["n"] == 3
    assert {"accuracy", "macro_f1", "oos_recall", "ece", "intervals", "latency_ms", "throughput_per_s", "versions", "invalid"} <= set(
        report
    )


def test_a_malformed_row_is_named(tmp_path: Path) -> None:
    """The error names file, row and field."""
    path = write(tmp_path / "rows.jsonl", [{"text": "hello", "request_class": "simple_lookup"}, {"text": 3, "request_class": "x"}])
    with pytest.raises(ValueError, match=r"rows.jsonl: row 2: field 'text'"):
        routing(path, options={})


def test_own_labels_can_be_trained_and_scored(tmp_path: Path) -> None:
    """A taxonomy made by training scores its own kind of rows."""
    subjects = ["lamp", "chair", "table", "sofa", "shelf", "bed", "desk", "rug", "mirror", "clock"]
    rows = [{"text": f"I want to return my {s}", "label": "return"} for s in subjects]
    rows += [{"text": f"How much does the {s} cost?", "label": "price"} for s in subjects]
    rows += [{"text": f"Tell me a story about a {s} on the moon", "label": "oos"} for s in subjects]
    train_taxonomy(write(tmp_path / "train.jsonl", rows), tmp_path / "own.npz")
    test = [{"text": "I would like to return a stool", "label": "return"}, {"text": "What does the stool cost?", "label": "price"}]
    report = routing(write(tmp_path / "test.jsonl", test), options={"taxonomy": str(tmp_path / "own.npz")})
    assert report["accuracy"] == 1.0
