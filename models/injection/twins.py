"""Expands hand-written templates into texts, and keeps some templates apart for measuring."""

import random
import re
from collections.abc import Sequence
from pathlib import Path

import yaml

_SLOT = re.compile(r"\{([a-z]+)\}")
_CHOICE = re.compile(r"\(([^()|]*(?:\|[^()|]*)+)\)")
_HELD_OUT = 5
_DEPTH = 4


class Twins:
    """Templates by kind; every fifth of a kind is held out."""

    def __init__(self, path: Path) -> None:
        """Read `slots` and `templates` of a YAML file."""
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        self._slots: dict[str, list[str]] = content["slots"]
        self._templates: dict[str, list[str]] = content["templates"]

    def slot(self, name: str) -> list[str]:
        """Return the fillings of a slot."""
        return self._slots[name]

    def texts(self, kind: str, count: int, *, held_out: bool = False, **slots: Sequence[str]) -> list[str]:
        """Return up to `count` distinct texts of one kind; `slots` adds or replaces fillings."""
        chance = random.Random(f"{kind}{held_out}{sorted(slots)}")
        chosen = [text for number, text in enumerate(self._templates[kind]) if (number % _HELD_OUT == _HELD_OUT - 1) == held_out]
        fillings = {**self._slots, **slots}
        found: dict[str, None] = {}
        for attempt in range(count * 3):
            if len(found) == count:
                break
            found.setdefault(_filled(chosen[attempt % len(chosen)], fillings, chance))
        return list(found)


def _filled(text: str, slots: dict[str, Sequence[str]], chance: random.Random) -> str:
    for _ in range(_DEPTH):
        text = _CHOICE.sub(lambda match: chance.choice(match[1].split("|")), text)
        text = _SLOT.sub(lambda match: chance.choice(slots[match[1]]) if match[1] in slots else match[0], text)
    text = re.sub(r"[ \t]+", " ", text).strip()
    text = re.sub(r" ([,.?!])", r"\1", text)
    return text[:1].upper() + text[1:] if chance.random() < 0.5 else text
