"""Looks for a document wherever something of it could be left."""

import datetime as dt
import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from nats.errors import Error as NatsError

from chassis.errors import UnavailableError
from chassis.messaging import Bus
from contracts.answers import ALL_ANSWERS, ANSWERS_STREAM, document_token, rests_on
from contracts.streams import ANSWERS, BUCKETS, STREAMS
from contracts.subjects import CDC_STREAM
from knowledge.generations import Generations
from knowledge.index import Index, IndexMissingError
from knowledge.schema import Kind, document_key

CDC_KEPT = dt.timedelta(seconds=next(config.max_age or 0 for config in STREAMS if config.name == CDC_STREAM))
ANSWERS_KEPT = dt.timedelta(seconds=next(config.ttl or 0 for config in BUCKETS if config.bucket == ANSWERS))


@dataclass(frozen=True)
class Place:
    """Where a document was looked for and since when it is not there; `decides` marks the record of the deletion itself."""

    name: str
    absent: bool
    since: dt.datetime | None = None
    decides: bool = False
    # Until when what is left there stays at most.
    until: dt.datetime | None = None


@runtime_checkable
class Remembering(Protocol):
    """An index that keeps older states of its tables for a while."""

    def older_versions(self, kind: Kind, key: str) -> list[tuple[int, dt.datetime, bool]]:
        """Return every stored version of a table, when it was made, and whether it holds a document."""
        ...


class Search:
    """Looks through the indexes of all generations, their older versions and the ledger."""

    def __init__(self, index: Index, generations: Generations, open_index: Callable[[str], Index], ledgers: Sequence[Path]) -> None:
        """Begin with the index in use; `open_index` opens that of another encoder."""
        self._index, self._generations, self._open, self._ledgers = index, generations, open_index, tuple(ledgers)

    def look(self, collection: str, document_id: str, tenant: str) -> list[Place]:
        """Return every place and whether the document is absent there."""
        key = document_key(collection, document_id, tenant)
        indexes = [place for index in self._indexes() for place in _in_index(index, key)]
        return indexes + [place for file in self._ledgers for place in _in_ledger(file, collection, key)]

    def _indexes(self) -> list[Index]:
        state = self._generations.read()
        if state is None or state.previous is None or state.previous.encoder == self._index.encoder:
            return [self._index]
        try:
            return [self._index, self._open(state.previous.encoder)]
        except IndexMissingError:
            return [self._index]


def _in_index(index: Index, key: str) -> list[Place]:
    places = []
    for kind in Kind:
        places.append(Place(f"index {kind.value} of {index.encoder}", not index.documents(kind, [key])[key]))
        if isinstance(index, Remembering):
            places += _in_versions(f"table versions {kind.value} of {index.encoder}", index.older_versions(kind, key))
    return places


def _in_versions(name: str, versions: Sequence[tuple[int, dt.datetime, bool]]) -> list[Place]:
    """Return one place for all older versions: absent since the first one after the last that holds the document."""
    holding = [number for number, _, holds in versions if holds]
    after = [at for number, at, _ in versions if not holding or number > holding[-1]]
    return [Place(f"{name} ({len(versions)})", not holding, min(after, default=None) if not holding else None)]


def _in_ledger(file: Path, collection: str, key: str) -> list[Place]:
    if not file.exists():
        return []
    store = sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=10)
    try:
        tables = {name for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        loaded = None
        if "loaded" in tables:
            loaded = store.execute("SELECT 1 FROM loaded WHERE collection = ? AND document_key = ?", (collection, key)).fetchone()
        rows = []
        if "cdc_rows" in tables:
            statement = "SELECT deleted, content, changed_ms FROM cdc_rows WHERE collection = ? AND document_key = ?"
            rows = store.execute(statement, (collection, key)).fetchall()
    finally:
        store.close()
    gone = [dt.datetime.fromtimestamp(changed / 1000, dt.UTC) for deleted, _, changed in rows if deleted]
    held = loaded is not None or any(not deleted or content not in {"", "{}", "null"} for deleted, content, _ in rows)
    places = [Place(f"ledger {file.name}", not held, max(gone, default=None), decides=True)]
    return [*places, _in_stream(max(gone))] if gone else places


def _in_stream(deleted_at: dt.datetime) -> Place:
    """Return the stream of change events, which holds a row's last states, and its deletion, until they are old enough.

    Its subjects name tables, not rows, so that no row can be purged from it alone.
    """
    until = deleted_at + CDC_KEPT
    gone = until <= dt.datetime.now(dt.UTC)
    return Place(f"stream {CDC_STREAM}", gone, until if gone else None, until=None if gone else until)


async def in_answers(bus: Bus, collection: str, document_id: str, tenant: str) -> Place:
    """Look for answers that are kept to be given again and rest on a document; raise UnavailableError."""
    try:
        question = json.dumps({"subjects_filter": ALL_ANSWERS}).encode()
        reply = await bus.client.request(f"$JS.API.STREAM.INFO.{ANSWERS_STREAM}", question, timeout=bus.timeout_seconds)
    except (TimeoutError, NatsError) as error:
        raise UnavailableError(f"the kept answers cannot be looked at: {error!r}") from error
    state = json.loads(reply.data).get("state") or {}
    token = document_token(collection, document_id)
    found = [whose for whose, documents in map(rests_on, state.get("subjects") or {}) if token in documents]
    held = any(tenant in {"", whose} for whose in found)
    until = dt.datetime.now(dt.UTC) + ANSWERS_KEPT
    return Place(f"answers kept in {ANSWERS}", not held, until=until if held else None)
