"""Looks for a document wherever something of it could be left."""

import datetime as dt
import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nats.errors import Error as NatsError

from chassis.errors import UnavailableError
from chassis.messaging import Bus
from contracts.answers import ALL_ANSWERS, ANSWERS_STREAM, document_token, rests_on
from contracts.streams import ANSWERS, BUCKETS, STREAMS
from contracts.subjects import CDC_STREAM
from ingestor.deletion_record import DELETIONS, key_hash
from knowledge.index import Index
from knowledge.schema import Kind, document_key
from knowledge.tables import Tables, Version

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


class Search:
    """Looks through every table of the engine, their older versions, and the ledgers."""

    def __init__(self, index: Index, tables: Tables, kept_until: Callable[[], Mapping[str, dt.datetime]], ledgers: Sequence[Path]) -> None:
        """Begin with the index in use; `kept_until` says by encoder until when other tables stay at most."""
        self._index, self._tables, self._kept_until, self._ledgers = index, tables, kept_until, tuple(ledgers)

    def look(self, collection: str, document_id: str, tenant: str) -> list[Place]:
        """Return every place and whether the document is absent there."""
        key = document_key(collection, document_id, tenant)
        places = [place for file in self._ledgers for place in _in_ledger(file, collection, key)]
        return [*self._in_index(key), *self._in_tables(key), *places]

    def _in_index(self, key: str) -> list[Place]:
        index = self._index
        return [Place(f"index {kind.value} of {index.encoder}", not index.documents(kind, [key])[key]) for kind in Kind]

    def _in_tables(self, key: str) -> list[Place]:
        """Return what tables hold that are not searched, and older versions of those that are."""
        searched, until, places = self._tables.of(self._index.encoder), self._kept_until(), list[Place]()
        for name in self._tables.names():
            if name not in searched:
                held = self._tables.holds(name, key)
                places.append(Place(f"table {name}", not held, until=until.get(self._tables.encoder(name)) if held else None))
            if versions := self._tables.versions(name, key):
                places.append(_in_versions(f"table versions of {name}", versions))
        return places


def _in_versions(name: str, versions: Sequence[Version]) -> Place:
    """Return one place for all older versions: absent since the first one after the last that holds the document."""
    holding = [number for number, _, holds in versions if holds]
    after = [at for number, at, _ in versions if not holding or number > holding[-1]]
    return Place(f"{name} ({len(versions)})", not holding, min(after, default=None) if not holding else None)


def _in_ledger(file: Path, collection: str, key: str) -> list[Place]:
    if not file.exists():
        return []
    store = sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=10)
    try:
        tables = {name for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        loaded, rows, recorded = None, [], None
        if "loaded" in tables:
            loaded = store.execute("SELECT 1 FROM loaded WHERE collection = ? AND document_key = ?", (collection, key)).fetchone()
        if "cdc_rows" in tables:
            statement = "SELECT deleted, content, changed_ms FROM cdc_rows WHERE collection = ? AND document_key = ?"
            rows = store.execute(statement, (collection, key)).fetchall()
        if DELETIONS in tables:
            recorded = store.execute(f"SELECT at_ms FROM {DELETIONS} WHERE key_hash = ?", (key_hash(key),)).fetchone()  # noqa: S608 - our own name
    finally:
        store.close()
    # Of a document of a folder that was deleted over the API a name and hashes stay, so that the folder does not bring it back.
    held = (loaded is not None and recorded is None) or any(not gone or content not in {"", "{}", "null"} for gone, content, _ in rows)
    tombstones = [changed for gone, _, changed in rows if gone]
    at = max([*tombstones, *(recorded or ())], default=None) if not held else None
    place = Place(f"ledger {file.name}", not held, None if at is None else _moment(at), decides=True)
    return [place, _in_stream(_moment(max(tombstones)))] if tombstones else [place]


def _moment(milliseconds: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC)


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
