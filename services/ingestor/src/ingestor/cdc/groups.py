"""What travels between the stream, the applier and whoever tells of it: messages, and what a group of them came to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from chassis.errors import ServiceError
from ingestor.cdc.envelopes import Change
from ingestor.library import Applied


@dataclass(frozen=True, slots=True)
class Message:
    """One message as the stream holds it."""

    sequence: int
    subject: str
    data: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Letter:
    """A message that nobody could handle, and why."""

    message: Message
    source: str
    error: ServiceError


@dataclass
class Group:
    """What a group of events came to."""

    applied: Applied = field(default_factory=Applied)
    letters: list[Letter] = field(default_factory=list)
    # By source: what was applied, and the places and times of commit of its changes.
    changes: dict[str, list[Change]] = field(default_factory=dict)
    settled: dict[str, int] = field(default_factory=dict)
    collections: dict[str, set[str]] = field(default_factory=dict)
    # By source: documents that say something else than the ledger knew, as collection/document.
    upserted: dict[str, list[str]] = field(default_factory=dict)
    removed: dict[str, list[str]] = field(default_factory=dict)
    # Sources of which a row lacks a value that nobody sent; tables whose rows are all known from here on.
    incomplete: set[str] = field(default_factory=set)
    completed: set[tuple[str, str]] = field(default_factory=set)


class Reporter(Protocol):
    """Whoever tells others what was applied."""

    def report(self, group: Group, stream: str, sequence: int) -> None:
        """Note what has to be published about a group, in its own transaction."""
        ...
