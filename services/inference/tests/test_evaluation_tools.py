"""The suite `tools` on malformed data, and on a real engine."""

import json
from pathlib import Path

import pytest

from encoders.evaluation import RowError
from inference.evaluation.tools import tools
from testkit.vllm import Vllm, repository

_TOOL = {
    "name": "get_weather",
    "description": "Get the weather forecast of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"]},
}
_ASKED = {"messages": [{"role": "user", "content": "What is the weather in Paris today?"}], "tools": [_TOOL]}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages"),
        ({"tools": [{"name": "x"}]}, "tools"),
        ({"tools": [{"name": "x", "parameters": {"type": 5}}]}, "tools"),
        ({"expected": [{"name": "x", "arguments": {"city": "Paris"}}]}, "expected"),
    ],
)
def test_a_malformed_row_is_named(tmp_path: Path, change: dict, field: str) -> None:
    """File, row and field are in the one line, and no engine was started for it."""
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({**_ASKED, "expected": [], **change}) + "\n")

    with pytest.raises(RowError, match=f"rows.jsonl: row 1: field '{field}'"):
        tools(file, options={})


@pytest.mark.model
def test_calls_are_scored_on_a_real_engine(vllm: Vllm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A question for the tool is called, one for no tool is not, and every headline figure is there."""
    rows = [
        {**_ASKED, "expected": [{"name": "get_weather", "arguments": {"city": ["Paris"]}}]},
        {**_ASKED, "messages": [{"role": "user", "content": "Who wrote Faust?"}], "expected": []},
    ]
    file, key = tmp_path / "rows.jsonl", tmp_path / "engine.key"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    key.write_text(vllm.api_key)
    monkeypatch.setenv("STRATA_HOME", str(repository()))

    report = tools(file, options={"url": vllm.url, "key_file": str(key)})

    assert (report["n"], report["invalid"]) == (2, 0)
    assert report["name_accuracy"] == report["irrelevance_accuracy"] == 1
    assert report["hallucinated_call_rate"] == 0
    assert set(report["intervals"]) >= {"call_accuracy", "argument_accuracy"}
