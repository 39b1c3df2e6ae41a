"""The hand-written templates expand fully, repeatably, and keep some of them apart for measuring."""

import re
from pathlib import Path

import pytest
import yaml
from twins import Twins

MODELS = Path(__file__).resolve().parents[2]
FILES = {name: MODELS / name / "twins.yaml" for name in ("injection", "safety")}
FILES["readers"] = MODELS / "injection" / "readers.yaml"
KINDS = [(name, kind) for name, path in FILES.items() for kind in yaml.safe_load(path.read_text(encoding="utf-8"))["templates"]]


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_templates_expand_to_text_without_slots_and_the_same_each_time(name: str, kind: str) -> None:
    """No brace of a slot is left, and a second reading gives the same texts."""
    found = Twins(FILES[name]).texts(kind, 120, goal=["bake bread"])

    assert len(found) > 20
    assert not [text for text in found if re.search(r"\{[a-z]+\}", text)]
    assert found == Twins(FILES[name]).texts(kind, 120, goal=["bake bread"])


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_held_out_templates_are_other_templates(name: str, kind: str) -> None:
    """No text of training appears among those that measure."""
    twins = Twins(FILES[name])

    assert not set(twins.texts(kind, 150, goal=["bake bread"])) & set(twins.texts(kind, 100, held_out=True, goal=["bake bread"]))
