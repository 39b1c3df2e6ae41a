"""Reads the pack: items of the two OWASP lists, each with attacks and harmless twins, and texts by another hand."""

import json
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

PACK = Path(__file__).parent / "pack"
Stage = Literal["input", "retrieved", "tool", "output"]
# Rows of `strata eval injection`, written on 2026-11-22 before their author had read any rule or the rest of the pack, and split by chance:
# rules and templates may learn from half A, nothing may from half B.
WILD = "wild.jsonl"
_INJECTION = "LLM01"
_HALVES = {"A": "wild_a", "B": "wild_held_out"}
_STAGES: dict[str, Stage] = {"user": "input", "document": "retrieved", "tool": "tool"}


class Passage(BaseModel):
    """A passage that an output may rest on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    text: str


class Group(BaseModel):
    """Attacks and twins that stand at one stage; `adaptive` makes variants of the attacks, `kind` is what they are counted as."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: Stage
    attacks: tuple[str, ...] = Field(min_length=1)
    twins: tuple[str, ...] = Field(min_length=1)
    passages: tuple[Passage, ...] = ()
    adaptive: bool = True
    kind: str = "seed"


class Item(BaseModel):
    """One item of a list; `probes` names what is tried against the running services beside the texts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^(LLM|ASI)\d\d$")
    title: str
    groups: tuple[Group, ...] = ()
    probes: tuple[str, ...] = ()


def wild(path: Path = PACK / WILD) -> tuple[Group, ...]:
    """Return one group for each stage and half of the texts by another hand; raise ValueError for a broken file."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found = []
    for half, kind in _HALVES.items():
        for channel, stage in _STAGES.items():
            texts = [(row["text"], row["label"]) for row in rows if (row["half"], row["channel"]) == (half, channel)]
            attacks, twins = (tuple(text for text, label in texts if label == wanted) for wanted in (1, 0))
            found.append(Group(stage=stage, attacks=attacks, twins=twins, adaptive=False, kind=kind))
    return tuple(found)


def load(folder: Path = PACK) -> tuple[Item, ...]:
    """Return all items in order, the texts by another hand with the first; raise ValueError for a broken file."""
    items = [Item(**entry) for file in sorted(folder.glob("*.yaml")) for entry in yaml.safe_load(file.read_text())]
    items = [item.model_copy(update={"groups": item.groups + wild(folder / WILD)}) if item.id == _INJECTION else item for item in items]
    return tuple(sorted(items, key=lambda item: (not item.id.startswith("LLM"), item.id)))
