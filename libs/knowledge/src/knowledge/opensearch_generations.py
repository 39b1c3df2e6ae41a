"""Indices beside the live one: built, put in its place in one step, put back, dropped."""

from dataclasses import dataclass
from typing import Any

from chassis.errors import FailedPreconditionError
from knowledge.index import IndexMissingError
from knowledge.opensearch import OpenSearchIndex, aliases, make_generation
from knowledge.opensearch_client import Connection
from knowledge.opensearch_templates import live_alias, physical, prefix, read_alias, write_alias
from knowledge.schema import Kind


@dataclass(frozen=True)
class Generation:
    """A fluid and an anchored index that were built together; `live` is the one whose encoder queries should use."""

    encoder: str
    number: int
    live: bool = False


class OpenSearchGenerations:
    """All generations on one cluster; each is a fluid and an anchored index of one encoder."""

    def __init__(self, connection: Connection) -> None:
        """Manage them as the user of `connection`, who may make and delete indices."""
        self._connection = connection

    def listing(self) -> list[Generation]:
        """Return every generation that is complete, by encoder and number."""
        there = aliases(self._connection)
        live = _only(there, live_alias(Kind.FLUID))
        found = []
        for name in sorted({index for indices in there.values() for index in indices}):
            encoder, _, number = name.removeprefix(prefix(Kind.FLUID)).rpartition("-")
            if name.startswith(prefix(Kind.FLUID)) and number.isdigit():
                found.append(Generation(encoder, int(number), live=name == live))
        return found

    def live(self) -> Generation | None:
        """Return the generation that queries should use."""
        return next((generation for generation in self.listing() if generation.live), None)

    def create(self, encoder: str) -> Generation:
        """Make an empty generation beside all others; readers do not find it before `swap`."""
        number = max([found.number for found in self.listing() if found.encoder == encoder], default=0) + 1
        generation = Generation(encoder, number, live=False)
        for kind in Kind:
            make_generation(self._connection, kind, encoder, number, [_own_alias(kind, generation)])
        return generation

    def open(self, generation: Generation) -> OpenSearchIndex:
        """Open one generation for reading and writing, whichever is live; raise IndexMissingError where it was dropped."""
        names = {kind: _own_alias(kind, generation) for kind in Kind}
        there = aliases(self._connection)
        missing = [kind for kind, name in names.items() if name not in there]
        for kind in missing:
            index = physical(kind, generation.encoder, generation.number)
            if not any(index in indices for indices in there.values()):
                raise IndexMissingError(generation.encoder, sorted({found.encoder for found in self.listing()} - {generation.encoder}))
        if missing:
            # The first generation was made under the names of readers and the writer only.
            self._change([_add(physical(kind, generation.encoder, generation.number), names[kind]) for kind in missing])
        return OpenSearchIndex(self._connection, generation.encoder, names, names)

    def swap(self, generation: Generation) -> Generation | None:
        """Let readers and the writer of its encoder, and whoever asks which is live, find this one; return the one before.

        One step for both kinds. The generation before stays as it is, so swapping to it takes the change back; another encoder's
        readers go on with theirs until it is dropped.
        """
        there, before = aliases(self._connection), self.live()
        actions: list[dict[str, Any]] = []
        for kind in Kind:
            index = physical(kind, generation.encoder, generation.number)
            for alias in (read_alias(kind, generation.encoder), write_alias(kind, generation.encoder), live_alias(kind)):
                actions += [_remove(old, alias) for old in there.get(alias, []) if old != index]
                actions.append(_add(index, alias))
        self._change(actions)
        return before

    def drop(self, generation: Generation) -> None:
        """Delete a generation; raise FailedPreconditionError for the live one."""
        if self.live() == Generation(generation.encoder, generation.number, live=True):
            raise FailedPreconditionError(f"generation {generation.number} of {generation.encoder!r} is live; swap another in first")
        for kind in Kind:
            name = physical(kind, generation.encoder, generation.number)
            self._connection.call("DELETE", f"/{name}", seconds=self._connection.settings.write_seconds, ignore_unavailable=True)

    def _change(self, actions: list[dict[str, Any]]) -> None:
        self._connection.call("POST", "/_aliases", {"actions": actions}, seconds=self._connection.settings.write_seconds)


def _own_alias(kind: Kind, generation: Generation) -> str:
    return f"{prefix(kind)}{generation.encoder}-g{generation.number:06d}"


def _add(index: str, alias: str) -> dict[str, Any]:
    return {"add": {"index": index, "alias": alias}}


def _remove(index: str, alias: str) -> dict[str, Any]:
    return {"remove": {"index": index, "alias": alias, "must_exist": True}}


def _only(there: dict[str, list[str]], alias: str) -> str:
    return next(iter(there.get(alias, [])), "")
