"""What every kind of engine can do for the model gateway."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, Protocol

from chassis.errors import UnavailableError


class ModelMissingError(UnavailableError):
    """The engine runs, but does not serve this model now."""


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call that a model asks for."""

    name: str
    arguments_json: str
    id: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str
    tool_call_id: str = ""
    calls: tuple[Call, ...] = ()


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that the client can run, with the JSON Schema of its arguments."""

    name: str
    description: str
    parameters: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """Whether to call: none, auto, required, or exactly the tool `name`."""

    mode: str = "auto"
    name: str = ""


@dataclass(frozen=True)
class Job:
    """What to generate; the same for every kind of engine.

    `schema` is the JSON Schema that the text must match: None for free text, empty for any object.
    """

    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float = 0.0
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    schema: dict[str, Any] | None = None
    tools: tuple[Tool, ...] = ()
    choice: ToolChoice = ToolChoice()
    prefix: str = ""


@dataclass(slots=True)
class Outcome:
    """How a generation ended; the provider fills it in while it streams."""

    finish_reason: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    calls: list[Call] = field(default_factory=list)


class Provider(Protocol):
    """One engine behind a URL."""

    def generate(self, model: str, job: Job, outcome: Outcome) -> AsyncGenerator[str, None]:
        """Yield text as it is made and fill in `outcome`; raise ServiceError, retryable where another engine may do better."""
        ...

    async def list_models(self) -> frozenset[str]:
        """Return the names that can be generated with now; raise ServiceError when the engine does not answer."""
        ...

    async def close(self) -> None:
        """Give the connections back."""
        ...
