"""Reads the instructions that answers must not recite."""

import re
from pathlib import Path

import yaml

_TEMPLATE = re.compile(r"\{[{%#].*?[}%#]\}", re.DOTALL)


def system_prompts(domains: Path) -> list[str]:
    """Return the fixed words of every system turn under `domains/*/prompts`."""
    texts: list[str] = []
    for path in sorted(domains.glob("*/prompts/*.yaml")):
        content = yaml.safe_load(path.read_text()) or {}
        turns = [m.get("content", "") for m in content.get("messages", ()) if m.get("role") == "system"]
        # A template's variables split the text: what they hold is not ours.
        texts += [part for turn in turns for part in _TEMPLATE.split(turn)]
    return texts
