"""Expands the hand-written templates of `seeds.yaml` into sentences."""

import random
import re
from pathlib import Path
from typing import Any

import yaml

_SLOT = re.compile(r"\{(\w+)\}")
_CHOICE = re.compile(r"\(([^()]*)\)")


class Seeds:
    """Templates per label, filled at random but reproducibly."""

    def __init__(self, path: Path) -> None:
        """Read `path`."""
        content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        self._slots: dict[str, list[str]] = content["slots"]
        self._templates: dict[str, list[str]] = content["templates"]

    def sentences(self, label: str, count: int, **fixed: str) -> list[str]:
        """Return up to `count` distinct sentences of `label`; `fixed` fills slots by name."""
        chance = random.Random(f"{label}:{count}:{sorted(fixed.items())}")
        templates = self._templates[label]
        found: dict[str, None] = {}
        for attempt in range(count * 4):
            if len(found) == count:
                break
            found.setdefault(self._fill(templates[attempt % len(templates)], chance, fixed))
        return list(found)

    def _fill(self, template: str, chance: random.Random, fixed: dict[str, str]) -> str:
        text = _CHOICE.sub(lambda match: chance.choice(match[1].split("|")), template)
        text = _SLOT.sub(lambda match: fixed.get(match[1]) or chance.choice(self._slots[match[1]]), text)
        text = re.sub(r"\s+", " ", text).strip()
        text = re.sub(r"\s([,.?!])", r"\1", text)
        style = chance.random()
        if style < 0.35:
            text = text[0].upper() + text[1:].replace(" i ", " I ").replace(" i'", " I'")
        if style < 0.5 and text.split()[0].lower() in {"what", "when", "can", "is", "do", "does", "how", "should", "are"}:
            text += "?"
        return text
