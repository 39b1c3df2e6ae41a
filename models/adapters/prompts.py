"""Render the prompt files that the product serves with, so that training sees the same text."""

from pathlib import Path
from typing import Any

import yaml
from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

ROOT = Path(__file__).resolve().parents[2]
PROMPT_FILES = {
    "symptom-extract@v1": ROOT / "domains/healthcare/prompts/symptom-extract@v1.yaml",
    "patient-answer@v1": ROOT / "domains/healthcare/prompts/patient-answer@v1.yaml",
    "retail-answer@v1": ROOT / "domains/retail/prompts/retail-answer@v1.yaml",
}
_ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=StrictUndefined)


def load_prompt(name: str) -> dict[str, Any]:
    """Read the prompt file of `name`, e.g. `patient-answer@v1`."""
    if name not in PROMPT_FILES:
        raise ValueError(f"unknown prompt {name!r}; known: {sorted(PROMPT_FILES)}")
    prompt: dict[str, Any] = yaml.safe_load(PROMPT_FILES[name].read_text(encoding="utf-8"))
    return prompt


def render(prompt: dict[str, Any], variables: dict[str, Any]) -> list[dict[str, str]]:
    """Fill the prompt's messages with `variables`; an undefined one raises UndefinedError."""
    return [
        {
            "role": message["role"],
            "content": _ENVIRONMENT.from_string(message["content"]).render(**variables),
        }
        for message in prompt["messages"]
    ]
