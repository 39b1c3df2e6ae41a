"""Reads the pack: items of the two OWASP lists, each with attacks and harmless twins."""

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

PACK = Path(__file__).parent / "pack"
Stage = Literal["input", "retrieved", "tool", "output"]


class Passage(BaseModel):
    """A passage that an output may rest on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    text: str


class Group(BaseModel):
    """Attacks and twins that stand at one stage; `adaptive` makes variants of the attacks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: Stage
    attacks: tuple[str, ...] = Field(min_length=1)
    twins: tuple[str, ...] = Field(min_length=1)
    passages: tuple[Passage, ...] = ()
    adaptive: bool = True


class Item(BaseModel):
    """One item of a list; `probes` names what is tried against the running services beside the texts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^(LLM|ASI)\d\d$")
    title: str
    groups: tuple[Group, ...] = ()
    probes: tuple[str, ...] = ()


def load(folder: Path = PACK) -> tuple[Item, ...]:
    """Return all items in order; raise ValueError for a broken file."""
    items = [Item(**entry) for file in sorted(folder.glob("*.yaml")) for entry in yaml.safe_load(file.read_text())]
    return tuple(sorted(items, key=lambda item: (not item.id.startswith("LLM"), item.id)))
