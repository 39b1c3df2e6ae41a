"""What a check is, what it looks at and what it says."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import Literal, Protocol, TypeVar

from guardrail.sentences import Sentence, split
from strata.guardrail.v1 import guardrail_service_pb2 as pb

OnError = Literal["allow", "block"]


class Decision(IntEnum):
    """What follows from a text, by the numbers of the contract."""

    ALLOW = pb.DECISION_ALLOW
    REDACT = pb.DECISION_REDACT
    REGENERATE = pb.DECISION_REGENERATE
    ABSTAIN = pb.DECISION_ABSTAIN
    ESCALATE = pb.DECISION_ESCALATE
    BLOCK = pb.DECISION_BLOCK


class Origin(IntEnum):
    """How a text was made, by the numbers of the contract."""

    UNSPECIFIED = pb.ORIGIN_UNSPECIFIED
    MODEL = pb.ORIGIN_MODEL
    EXTRACT = pb.ORIGIN_EXTRACT
    TEMPLATE = pb.ORIGIN_TEMPLATE
    NOTICE = pb.ORIGIN_NOTICE
    REVIEWED = pb.ORIGIN_REVIEWED


@dataclass(frozen=True)
class Piece:
    """One text of a conversation, with the role of who wrote it."""

    role: str
    text: str


@dataclass(frozen=True)
class Conversation:
    """Everything that a client sent as text, oldest first."""

    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Source:
    """A passage that an answer may rest on."""

    id: str
    text: str
    title: str = ""
    version: str = ""
    document_id: str = ""
    effective_from: str = ""
    effective_to: str = ""
    superseded_by: str = ""


@dataclass(frozen=True)
class Answer:
    """One window of an answer, with what it may rest on; `vault` maps pseudonyms to what they stand for."""

    text: str
    released: str = ""
    final: bool = True
    origin: Origin = Origin.MODEL
    sources: tuple[Source, ...] = ()
    require_grounding: bool = False
    schema: str = ""
    vault: Mapping[str, str] = field(default_factory=dict)
    # Secrets that its prompt may have held.
    canaries: tuple[str, ...] = ()
    # Language that it must have, or nothing, and what follows where it has another.
    language: str = ""
    language_decision: Decision = Decision.ALLOW

    @property
    def by_model(self) -> bool:
        """Whether a model wrote it; what nobody declared counts as such."""
        return self.origin in {Origin.MODEL, Origin.UNSPECIFIED}

    @cached_property
    def sentences(self) -> tuple[Sentence, ...]:
        """The sentences of this window."""
        return split(self.text)


@dataclass(frozen=True)
class Finding:
    """What a check found; `decision` is what it demands when it objects, `detail` is for who asked."""

    score: float = 0.0
    decision: Decision = Decision.ALLOW
    code: str = ""
    reason: str = ""
    detail: object = None

    @property
    def flagged(self) -> bool:
        """Whether the check objects."""
        return self.decision is not Decision.ALLOW


CLEAR = Finding()

SubjectT_contra = TypeVar("SubjectT_contra", contravariant=True)


class Check(Protocol[SubjectT_contra]):
    """One plug-in; `run` is called in a thread and must not touch the event loop."""

    version: str
    threshold: float
    budget_ms: float
    on_error: OnError

    @property
    def name(self) -> str:
        """Name in verdicts, metrics and settings."""
        ...

    def run(self, subject: SubjectT_contra, /) -> Finding:
        """Judge one subject; an attribute `cheap` that is true lets the check run before the others.

        An attribute `roles` names whose texts of a conversation it judges; without one it judges them all.
        """
        ...
