"""What the shipped adapters promise: intact files, the served prompt, and a margin that the card states."""

import hashlib
import json
from pathlib import Path

import jsonschema
import pytest
from jinja2 import UndefinedError
from prompts import PROMPT_FILES, load_prompt, render
from rows import ABSTAIN, read_rows
from scoring import score

HERE = Path(__file__).resolve().parents[1]
NAMES = sorted(PROMPT_FILES)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", NAMES)
def test_files_match_the_manifest(name: str) -> None:
    """Weights, configuration, held-out rows and prompt are the ones that the manifest was written for."""
    manifest = json.loads((HERE / name / "manifest.json").read_text())
    for file, digest in manifest["sha256"].items():
        assert _sha256(HERE / name / file) == digest, file
    assert _sha256(PROMPT_FILES[name]) == manifest["prompt_sha256"]


@pytest.mark.parametrize("name", NAMES)
def test_configuration_is_servable(name: str) -> None:
    """The adapter names the public base and keeps within the rank that the engine is started with."""
    config = json.loads((HERE / name / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert config["r"] <= 16
    assert config["peft_type"] == "LORA"


@pytest.mark.parametrize("name", NAMES)
def test_adapter_beats_the_base_by_the_stated_margin(name: str) -> None:
    """The interval of the margin lies above zero, and the card says the same number as the metrics."""
    success = json.loads((HERE / name / "metrics.json").read_text())["metrics"]["success"]
    assert success["n"] >= 50
    assert success["margin_interval"][0] > 0
    assert f"margin {success['margin']:+.3f}" in (HERE / name / "README.md").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_a_perfect_reply_scores_one(name: str) -> None:
    """Every held-out row renders with the served prompt, and its own target is a full score."""
    prompt = load_prompt(name)
    rows = read_rows(HERE / name / "heldout.jsonl")
    assert 50 <= len(rows) <= 150
    for row in rows:
        assert render(prompt, row.variables)[-1]["role"] == "user"
        assert score(name, row, row.target)["success"] == pytest.approx(1.0)


def test_targets_fit_the_served_schema() -> None:
    """What the extractor learned to write is what constrained decoding will let it write."""
    validator = jsonschema.Draft202012Validator(load_prompt("symptom-extract@v1")["schema"])
    rows = read_rows(HERE / "symptom-extract@v1" / "heldout.jsonl")
    problems = [error.message for row in rows for error in validator.iter_errors(json.loads(row.target))]
    assert (len(rows) >= 50, problems) == (True, [])


def test_invented_citation_scores_nothing() -> None:
    """A right sentence under a wrong number does not count."""
    row = next(row for row in read_rows(HERE / "patient-answer@v1" / "heldout.jsonl") if row.gold)
    assert score("patient-answer@v1", row, row.target.replace(f"[{row.gold[0]}]", "[9]"))["success"] == 0.0
    assert score("patient-answer@v1", row, ABSTAIN)["success"] == 0.0


def test_missing_variable_is_refused() -> None:
    """A prompt is never sent with a hole in it."""
    with pytest.raises(UndefinedError):
        render(load_prompt("retail-answer@v1"), {"question": "Where is my order?"})
