"""Versioned prompt templates, read from the domains' folders."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chassis.errors import InvalidArgumentError, NotFoundError
from inference.configuration import ConfigurationError
from inference.providers.base import Message

_ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=StrictUndefined)


class _Turn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    role: str = Field(pattern="^(system|user|assistant)$")
    content: str


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    version: str | int
    description: str
    passthrough: bool = False
    messages: list[_Turn] = Field(min_length=1)
    max_tokens: int = Field(ge=1)
    temperature: float = Field(ge=0, le=2)
    json_schema: dict[str, Any] | None = Field(default=None, alias="schema")


@dataclass(frozen=True)
class Prompt:
    """One version of a prompt, as its file says."""

    name: str
    sha256: str
    passthrough: bool
    max_tokens: int
    temperature: float
    schema: dict[str, Any] | None
    turns: tuple[tuple[str, Template], ...]

    def render(self, variables: dict[str, Any], *, max_characters: int) -> list[Message]:
        """Fill in the variables; raise InvalidArgumentError for one that is missing or a text that is too long."""
        messages, budget = [], max_characters
        for role, template in self.turns:
            try:
                # Generated in pieces, so that a text without end stops at the budget.
                pieces = []
                for piece in template.generate(**variables):
                    pieces.append(piece)
                    if (budget := budget - len(piece)) < 0:
                        raise InvalidArgumentError(f"prompt {self.name!r} is longer than {max_characters} characters")
            except TemplateError as error:
                raise InvalidArgumentError(f"prompt {self.name!r}: {error}") from error
            except (TypeError, ValueError, ArithmeticError) as error:
                raise InvalidArgumentError(f"prompt {self.name!r} cannot be filled in: {error}") from error
            messages.append(Message(role, "".join(pieces)))
        return messages


@dataclass
class Prompts:
    """All prompts by name, such as `patient-answer@v1`."""

    by_name: dict[str, Prompt] = field(default_factory=dict)

    def get(self, name: str) -> Prompt:
        """Return a prompt; raise NotFoundError for an unknown name."""
        try:
            return self.by_name[name]
        except KeyError:
            raise NotFoundError(f"unknown prompt {name!r}; known: {sorted(self.by_name)}") from None


def load(domains: Path) -> Prompts:
    """Read every prompt below `domains`; raise ConfigurationError with one line for a wrong or doubled one."""
    prompts = Prompts()
    for path in sorted(domains.glob("*/prompts/*@v*.yaml")):
        prompt = _read(path)
        if prompt.name in prompts.by_name:
            raise ConfigurationError(f"{path}: prompt {prompt.name!r} exists twice")
        prompts.by_name[prompt.name] = prompt
    return prompts


def _read(path: Path) -> Prompt:
    try:
        raw = path.read_bytes()
        content = _File.model_validate(yaml.safe_load(raw))
        turns = tuple((turn.role, _ENVIRONMENT.from_string(turn.content)) for turn in content.messages)
    except (ValidationError, yaml.YAMLError, TemplateError, OSError) as error:
        raise ConfigurationError(f"{path}: {' '.join(str(error).split())}") from error
    if content.name != path.stem:
        raise ConfigurationError(f"{path}: its name is {content.name!r}, its file says {path.stem!r}")
    sha256 = hashlib.sha256(raw).hexdigest()
    return Prompt(content.name, sha256, content.passthrough, content.max_tokens, content.temperature, content.json_schema, turns)
