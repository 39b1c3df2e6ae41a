"""The suite `generation`: what each figure counts, malformed data, and a real engine."""

import json
from pathlib import Path

import pytest

from encoders import Encoder
from encoders.evaluation import RowError
from encoders.grounding import SupportScorer
from inference.evaluation.generation import generation, rouge_l, score
from testkit.vllm import Vllm, repository

_CONTEXT = ["Returns are free within 30 days of delivery.", "Gift cards cannot be returned."]
_ROW = {"messages": [{"role": "user", "content": "How long can I return something?"}], "context": _CONTEXT}


@pytest.fixture(scope="module")
def scorer() -> SupportScorer:
    """The shipped weights."""
    return SupportScorer.load(repository() / "models" / "grounding", Encoder.load())


@pytest.mark.parametrize(
    ("text", "grounded", "cites", "abstained"),
    [
        ("Returns are free within 30 days of delivery [1].", True, True, False),
        ("Returns are free within 30 days of delivery [3].", True, False, False),
        ("Returns are free within 90 days of delivery.", False, False, False),
        ("I could not find this in the available documents.", None, None, True),
    ],
)
def test_an_answer_over_passages(scorer: SupportScorer, text: str, *, grounded: bool | None, cites: bool | None, abstained: bool) -> None:
    """Every sentence needs support and at least one citation that exists; an abstention is counted apart."""
    found = score(_ROW, text, scorer)

    assert (found.grounded, found.citations_valid, found.abstained) == (grounded, cites, abstained)
    assert found.schema_valid is found.likeness is None


def test_text_that_must_match_a_schema(scorer: SupportScorer) -> None:
    """Broken JSON and a missing field are both invalid."""
    row = {"messages": [], "schema": {"type": "object", "required": ["a"]}}

    assert [score(row, text, scorer).schema_valid for text in ('{"a": 1}', "{}", "{")] == [True, False, False]


def test_likeness_is_the_longest_common_subsequence() -> None:
    """By hand: 3 of 4 and 3 of 3 words in order."""
    assert rouge_l("the cat sat down", "the cat down") == pytest.approx(6 / 7)
    assert rouge_l("nothing", "the cat") == 0


@pytest.mark.parametrize("change", [{"context": "x"}, {"reference": 1}, {"schema": {"type": 5}}, {"messages": "hi"}])
def test_a_malformed_row_is_named(tmp_path: Path, change: dict) -> None:
    """File, row and field are in the one line."""
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({**_ROW, **change}) + "\n")

    with pytest.raises(RowError, match=f"rows.jsonl: row 1: field '{next(iter(change))}'"):
        generation(file, options={})


@pytest.mark.model
def test_answers_are_scored_on_a_real_engine(vllm: Vllm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A schema is kept, an answer over passages is judged, and the judge is named."""
    schema = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"], "additionalProperties": False}
    rows = [{**_ROW, "reference": "Within 30 days."}, {"messages": _ROW["messages"], "schema": schema}]
    file, key = tmp_path / "rows.jsonl", tmp_path / "engine.key"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    key.write_text(vllm.api_key)
    monkeypatch.setenv("STRATA_HOME", str(repository()))

    report = generation(file, options={"url": vllm.url, "key_file": str(key)})

    assert (report["n"], report["invalid"], report["judge"]) == (2, 0, "rouge-l")
    assert report["schema_valid"] == 1
    assert report["abstain_rate"] is not None
    assert report["versions"]["adapter"] == "patient-answer@v1"
