"""What the sources say now, row by row, and how far each stream was read; in the ledger's file, one transaction for a group."""

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ingestor import deletion_record

_TABLES = """
CREATE TABLE IF NOT EXISTS cdc_rows (
    source TEXT, tbl TEXT, key TEXT, lsn INTEGER NOT NULL, position INTEGER NOT NULL, deleted INTEGER NOT NULL, content TEXT NOT NULL,
    since TEXT NOT NULL, document_key TEXT NOT NULL, collection TEXT NOT NULL, hash TEXT NOT NULL, chunks INTEGER NOT NULL,
    expires_ms INTEGER, committed_ms INTEGER NOT NULL, changed_ms INTEGER NOT NULL, PRIMARY KEY (source, tbl, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS cdc_rows_by_document ON cdc_rows (collection, document_key);
CREATE INDEX IF NOT EXISTS cdc_rows_by_expiry ON cdc_rows (expires_ms) WHERE expires_ms IS NOT NULL AND chunks > 0;
CREATE TABLE IF NOT EXISTS cdc_tables (
    source TEXT, tbl TEXT, truncated INTEGER NOT NULL DEFAULT 0, begun INTEGER NOT NULL DEFAULT 0, complete INTEGER NOT NULL DEFAULT 0,
    mapping TEXT NOT NULL DEFAULT '', PRIMARY KEY (source, tbl)
);
CREATE TABLE IF NOT EXISTS cdc_streams (name TEXT PRIMARY KEY, created TEXT NOT NULL, sequence INTEGER NOT NULL, rebuild INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS cdc_sources (
    source TEXT PRIMARY KEY, position INTEGER NOT NULL, last_change_ms INTEGER NOT NULL, applied INTEGER NOT NULL,
    dead INTEGER NOT NULL, embedded INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS cdc_history (document_key TEXT, closed INTEGER, until_ms INTEGER, PRIMARY KEY (document_key, closed));
CREATE TABLE IF NOT EXISTS cdc_outbox (place INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT, subject TEXT, id TEXT, headers TEXT, body BLOB);
"""
_COLUMNS = (
    "source, tbl, key, lsn, position, deleted, content, since, document_key, collection, hash, chunks, expires_ms, committed_ms, changed_ms"
)
_KEYS_AT_ONCE = 500
# Made once: `json.dumps` with other separators makes one for each value.
_encoded = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass
class Row:
    """What the source says of one row, and what the index holds of it."""

    source: str
    table: str
    key: str
    lsn: int = -1
    position: int = 0
    deleted: bool = True
    content: dict[str, Any] = field(default_factory=dict)
    # Columns that the last event did not carry, each with the place of the event that did; -1 where none has come yet.
    since: dict[str, int] = field(default_factory=dict)
    document_key: str = ""
    collection: str = ""
    hash: str = ""
    chunks: int = 0
    expires_ms: int | None = None
    committed_ms: int = 0

    @property
    def missing(self) -> frozenset[str]:
        """Columns whose value nobody has sent yet."""
        return frozenset(name for name, place in self.since.items() if place < 0)


@dataclass(frozen=True)
class Outgoing:
    """What still has to be published: `applied`, `audit` or `dead`."""

    place: int
    kind: str
    subject: str
    message_id: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class StreamState:
    """How far a stream was read; below `rebuild` rows are only remembered, because the index holds later ones."""

    created: str
    sequence: int
    rebuild: int


@dataclass(frozen=True)
class Progress:
    """How far a source has come."""

    position: int = 0
    last_change_ms: int = 0
    applied: int = 0
    dead: int = 0
    embedded: int = 0


class Rows:
    """The tables of change events in a SQLite file; one thread writes."""

    def __init__(self, file: Path) -> None:
        """Open or create the tables in `file`."""
        file.parent.mkdir(parents=True, exist_ok=True)
        self._store = sqlite3.connect(file, check_same_thread=False, isolation_level=None, timeout=30)
        self._store.execute("PRAGMA journal_mode=WAL")
        # What a power cut takes is read from the stream again: rows and place in the stream go together.
        self._store.execute("PRAGMA synchronous=NORMAL")
        self._store.executescript(_TABLES + deletion_record.TABLE)

    def close(self) -> None:
        """Close the file."""
        self._store.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Keep all that the block writes, or nothing."""
        self._store.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._store.execute("ROLLBACK")
            raise
        self._store.execute("COMMIT")

    def get(self, source: str, table: str, key: str) -> Row:
        """Return one row; one that was never seen is deleted at no place."""
        found = self._rows("WHERE source = ? AND tbl = ? AND key = ?", source, table, key)
        return found[0] if found else Row(source, table, key)

    def several(self, source: str, table: str, keys: Sequence[str]) -> dict[str, Row]:
        """Return those of some rows of a table that were ever seen, by key; far fewer waits for the interpreter than one by one."""
        found: dict[str, Row] = {}
        for some in (keys[at : at + _KEYS_AT_ONCE] for at in range(0, len(keys), _KEYS_AT_ONCE)):
            marks = ",".join("?" * len(some))
            found |= {row.key: row for row in self._rows(f"WHERE source = ? AND tbl = ? AND key IN ({marks})", source, table, *some)}
        return found

    def put(self, rows: Iterable[Row]) -> None:
        """Write rows."""
        now = _now_ms()
        self._store.executemany(
            f"INSERT OR REPLACE INTO cdc_rows ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",  # noqa: S608 - our own columns
            [(row.source, row.table, row.key, row.lsn, row.position, row.deleted, _encoded(row.content), _encoded(row.since),
              row.document_key, row.collection, row.hash, row.chunks, row.expires_ms, row.committed_ms, now) for row in rows],
        )  # fmt: skip

    def of_table(self, source: str, table: str) -> Iterator[Row]:
        """Yield every row of a table."""
        statement = f"SELECT {_COLUMNS} FROM cdc_rows WHERE source = ? AND tbl = ? AND deleted = 0"  # noqa: S608 - our own columns
        cursor = self._store.execute(statement, (source, table))
        while page := cursor.fetchmany(500):
            yield from map(_row, page)

    def see(self, keys: Iterable[str]) -> None:
        """Note keys that a source has, until `forget_seen`."""
        self._store.execute("CREATE TEMP TABLE IF NOT EXISTS seen (key TEXT PRIMARY KEY) WITHOUT ROWID")
        self._store.executemany("INSERT OR IGNORE INTO seen VALUES (?)", ((key,) for key in keys))

    def forget_seen(self) -> None:
        """Drop the noted keys."""
        self._store.execute("DROP TABLE IF EXISTS temp.seen")

    def unseen(self, source: str, table: str, keys: Sequence[str], lsn: int) -> list[Row]:
        """Return those of some living rows of a table that were changed last before `lsn` and are not among the noted keys."""
        self.see(())
        marks = ",".join("?" * len(keys))
        return self._rows(
            f"WHERE source = ? AND tbl = ? AND key IN ({marks}) AND lsn < ? AND deleted = 0 "  # noqa: S608 - our own columns
            "AND key NOT IN (SELECT key FROM seen)",
            source, table, *keys, lsn,
        )  # fmt: skip

    def by_documents(self, collection: str, keys: Sequence[str]) -> dict[str, Row]:
        """Return the living rows behind documents, by document key."""
        marks = ",".join("?" * len(keys))
        found = self._rows(f"WHERE collection = ? AND document_key IN ({marks}) AND deleted = 0", collection, *keys)
        return {row.document_key: row for row in found}

    def owners(self, collection: str, keys: Sequence[str]) -> dict[str, tuple[str, str, str]]:
        """Return source, table and key of the living rows behind documents, by document key."""
        found: dict[str, tuple[str, str, str]] = {}
        for some in (keys[at : at + _KEYS_AT_ONCE] for at in range(0, len(keys), _KEYS_AT_ONCE)):
            marks = ",".join("?" * len(some))
            condition = f"WHERE collection = ? AND document_key IN ({marks}) AND deleted = 0"
            statement = f"SELECT document_key, source, tbl, key FROM cdc_rows {condition}"  # noqa: S608 - our own columns
            found |= {name: (source, table, key) for name, source, table, key in self._store.execute(statement, (collection, *some))}
        return found

    def expected(self, collection: str) -> list[tuple[str, str, int]]:
        """Return document key, hash and number of chunks of everything that the index should hold of a collection."""
        statement = "SELECT document_key, hash, chunks FROM cdc_rows WHERE collection = ? AND deleted = 0 AND chunks > 0"
        return self._store.execute(statement, (collection,)).fetchall()

    def some_document(self) -> str:
        """Return the key of any document that the index should hold; empty where there is none."""
        found = self._store.execute("SELECT document_key FROM cdc_rows WHERE deleted = 0 AND chunks > 0 LIMIT 1").fetchone()
        return str(found[0]) if found else ""

    def expired(self, now_ms: int, limit: int) -> list[Row]:
        """Return rows whose document is past its expiry and still in the index."""
        return self._rows("WHERE expires_ms <= ? AND chunks > 0 AND deleted = 0 LIMIT ?", now_ms, limit)

    def forget_tombstones(self, before_ms: int, limit: int) -> int:
        """Drop deletions that no replay can reach any more, and remember for good that and when they were."""
        statement = "SELECT source, tbl, key, document_key, changed_ms FROM cdc_rows WHERE deleted = 1 AND changed_ms < ? LIMIT ?"
        old = self._store.execute(statement, (before_ms, limit)).fetchall()
        deletion_record.record(self._store, [(name, at_ms) for *_, name, at_ms in old if name])
        self._store.executemany("DELETE FROM cdc_rows WHERE source = ? AND tbl = ? AND key = ?", [row[:3] for row in old])
        return len(old)

    def table_state(self, source: str, table: str) -> tuple[int, int, int]:
        """Return where a table was emptied last, where a snapshot began, and from where on its rows are all known."""
        found = self._store.execute("SELECT truncated, begun, complete FROM cdc_tables WHERE source = ? AND tbl = ?", (source, table))
        return found.fetchone() or (0, 0, 0)

    def set_table_state(self, source: str, table: str, **values: int) -> None:
        """Change some of what `table_state` returns."""
        self._store.execute("INSERT OR IGNORE INTO cdc_tables (source, tbl) VALUES (?, ?)", (source, table))
        for name, value in values.items():
            statement = f"UPDATE cdc_tables SET {name} = ? WHERE source = ? AND tbl = ?"  # noqa: S608 - our own columns
            self._store.execute(statement, (value, source, table))

    def distrust_snapshots(self, tables: Iterable[tuple[str, str]]) -> None:
        """Note that events were lost: the end of a snapshot whose beginning was before that says nothing of the rows between."""
        for source, table in tables:
            self.set_table_state(source, table, begun=-1)

    def mapping(self, source: str, table: str) -> str:
        """Return the fingerprint of the mapping by which the documents of a table were made; empty for a table that is new."""
        found = self._store.execute("SELECT mapping FROM cdc_tables WHERE source = ? AND tbl = ?", (source, table)).fetchone()
        return str(found[0]) if found else ""

    def set_mapping(self, source: str, table: str, fingerprint: str) -> None:
        """Note by which mapping the documents of a table are made."""
        self._store.execute("INSERT OR IGNORE INTO cdc_tables (source, tbl) VALUES (?, ?)", (source, table))
        self._store.execute("UPDATE cdc_tables SET mapping = ? WHERE source = ? AND tbl = ?", (fingerprint, source, table))

    def known_tables(self) -> list[tuple[str, str]]:
        """Return source and name of every table that was ever mapped."""
        return self._store.execute("SELECT source, tbl FROM cdc_tables ORDER BY source, tbl").fetchall()

    def forget_rows(self, source: str, table: str, collection: str) -> None:
        """Drop the rows of a table that are behind documents of a collection; deletions are remembered for good."""
        where, values = "WHERE source = ? AND tbl = ? AND collection = ?", (source, table, collection)
        gone = self._store.execute(f"SELECT document_key, changed_ms FROM cdc_rows {where} AND deleted = 1", values)  # noqa: S608 - our own
        deletion_record.record(self._store, [(name, at_ms) for name, at_ms in gone.fetchall() if name])
        self._store.execute(f"DELETE FROM cdc_rows {where}", values)  # noqa: S608 - our own columns

    def page(self, source: str, table: str, after: str, limit: int) -> list[Row]:
        """Return living rows of a table behind a key, in the order of keys."""
        return self._rows("WHERE source = ? AND tbl = ? AND key > ? AND deleted = 0 ORDER BY key LIMIT ?", source, table, after, limit)

    def stream(self, name: str) -> StreamState | None:
        """Return how far a stream was read; None for one that was never read."""
        found = self._store.execute("SELECT created, sequence, rebuild FROM cdc_streams WHERE name = ?", (name,)).fetchone()
        return StreamState(*found) if found else None

    def set_stream(self, name: str, state: StreamState) -> None:
        """Note how far a stream was read."""
        self._store.execute("INSERT OR REPLACE INTO cdc_streams VALUES (?, ?, ?, ?)", (name, state.created, state.sequence, state.rebuild))

    def progress(self, source: str) -> Progress:
        """Return how far a source has come."""
        statement = "SELECT position, last_change_ms, applied, dead, embedded FROM cdc_sources WHERE source = ?"
        found = self._store.execute(statement, (source,)).fetchone()
        return Progress(*found) if found else Progress()

    def advance(self, source: str, progress: Progress) -> None:
        """Add to the counts of a source, and move its place forward, never back."""
        self._store.execute("INSERT OR IGNORE INTO cdc_sources VALUES (?, 0, 0, 0, 0, 0)", (source,))
        self._store.execute(
            "UPDATE cdc_sources SET position = max(position, ?), last_change_ms = max(last_change_ms, ?), applied = applied + ?, "
            "dead = dead + ?, embedded = embedded + ? WHERE source = ?",
            (progress.position, progress.last_change_ms, progress.applied, progress.dead, progress.embedded, source),
        )

    def remember_history(self, closed: Iterable[tuple[str, int, int]]) -> None:
        """Note until when closed copies are kept: document key, place at which they were closed, milliseconds since 1970."""
        self._store.executemany("INSERT OR IGNORE INTO cdc_history VALUES (?, ?, ?)", closed)

    def past_history(self, now_ms: int, limit: int) -> list[tuple[str, int]]:
        """Return closed copies that were kept long enough."""
        return self._store.execute("SELECT document_key, closed FROM cdc_history WHERE until_ms <= ? LIMIT ?", (now_ms, limit)).fetchall()

    def forget_history(self, copies: Iterable[tuple[str, int]]) -> None:
        """Drop closed copies that are gone."""
        self._store.executemany("DELETE FROM cdc_history WHERE document_key = ? AND closed = ?", copies)

    def send(self, kind: str, subject: str, message_id: str, body: bytes, headers: dict[str, str] | None = None) -> None:
        """Note what has to be published once the transaction stands."""
        statement = "INSERT INTO cdc_outbox (kind, subject, id, headers, body) VALUES (?, ?, ?, ?, ?)"
        self._store.execute(statement, (kind, subject, message_id, json.dumps(headers or {}), body))

    def outgoing(self, limit: int) -> list[Outgoing]:
        """Return what has to be published, oldest first."""
        statement = "SELECT place, kind, subject, id, headers, body FROM cdc_outbox ORDER BY place LIMIT ?"
        found = self._store.execute(statement, (limit,)).fetchall()
        return [Outgoing(place, kind, subject, name, json.loads(headers), body) for place, kind, subject, name, headers, body in found]

    def sent(self, up_to: int) -> None:
        """Forget what was published."""
        self._store.execute("DELETE FROM cdc_outbox WHERE place <= ?", (up_to,))

    def _rows(self, condition: str, *values: object) -> list[Row]:
        statement = f"SELECT {_COLUMNS} FROM cdc_rows {condition}"  # noqa: S608 - our own columns and conditions
        return [_row(found) for found in self._store.execute(statement, values).fetchall()]


def _row(found: tuple[Any, ...]) -> Row:
    source, table, key, lsn, position, deleted, content, since, *rest = found
    return Row(source, table, key, lsn, position, bool(deleted), json.loads(content), json.loads(since), *rest[:-1])


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
