"""What can be looked up in the log: a SQLite file beside it, rebuilt from the log whenever it is missing or does not fit."""

import hashlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audit.leaves import Leaf, canonical
from audit.terms import Token, terms, unnamed

_VERSION = 3
_PARAMETERS = 500
# These differ between repeats of one fact.
_STAMPS = frozenset({"producer", "producer_sequence"})
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS records (
  position INTEGER PRIMARY KEY, segment INTEGER NOT NULL, offset INTEGER NOT NULL, sequence INTEGER NOT NULL, stored_at TEXT NOT NULL,
  record_id TEXT NOT NULL, request_id TEXT, trace_id TEXT, digest BLOB, tenant TEXT, step TEXT, key TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS records_sequence ON records (sequence);
CREATE INDEX IF NOT EXISTS records_record ON records (record_id);
CREATE INDEX IF NOT EXISTS records_request ON records (request_id) WHERE request_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS records_trace ON records (trace_id) WHERE trace_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS records_tenant ON records (tenant);
CREATE TABLE IF NOT EXISTS terms (
  tenant TEXT NOT NULL, kind TEXT NOT NULL, value TEXT NOT NULL, position INTEGER NOT NULL, request_id TEXT,
  PRIMARY KEY (tenant, kind, value, position)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cited (
  document TEXT NOT NULL, version TEXT NOT NULL, position INTEGER NOT NULL, tenant TEXT, request_id TEXT, trace_id TEXT,
  PRIMARY KEY (document, version, position)
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that cited a document."""

    tenant: str
    request_id: str
    trace_id: str


@dataclass(frozen=True, slots=True)
class Found:
    """Where a leaf lies: its index, the first index of its file, and the offset of its line in bytes."""

    position: int
    segment: int
    offset: int


class View:
    """The lookups of one log; written by one thread at a time, read by any."""

    def __init__(self, path: Path, origin: str, token: Token = unnamed) -> None:
        """Open the file of log `origin`; one of another log, of another version or unreadable is begun anew.

        `token` gives the name under which users are found; without it they are not.
        """
        self._path, self._token = path, token
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            self._connection = self._opened(origin)
        except sqlite3.DatabaseError:
            self.reset(origin)
        self._secret: bytes = self._meta("secret")

    def _opened(self, origin: str) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=5, check_same_thread=False)
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "secure_delete = ON"):
            connection.execute(f"PRAGMA {pragma}")
        connection.executescript(_SCHEMA)
        wanted = f"{origin} {_VERSION}"
        connection.execute("INSERT OR IGNORE INTO meta VALUES ('log', ?), ('secret', ?)", (wanted, os.urandom(16)))
        connection.commit()
        if connection.execute("SELECT value FROM meta WHERE name = 'log'").fetchone()[0] != wanted:
            connection.close()
            raise sqlite3.DatabaseError("the view of another log")
        return connection

    def reset(self, origin: str) -> None:
        """Begin anew."""
        if hasattr(self, "_connection"):
            self._connection.close()
        for suffix in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        self._connection = self._opened(origin)
        self._secret = self._meta("secret")

    def _meta(self, name: str) -> Any:
        return self._connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()[0]

    @property
    def size(self) -> int:
        """How many leaves it knows."""
        highest = self._connection.execute("SELECT max(position) FROM records").fetchone()[0]
        return 0 if highest is None else int(highest) + 1

    def digest(self, record: dict[str, Any]) -> bytes:
        """Return what tells two contents under one identifier apart; nobody without this view can compute it."""
        content = {name: value for name, value in record.items() if name not in _STAMPS}
        return hashlib.blake2b(canonical(content), digest_size=16, key=self._secret).digest()

    def stored(self, sequences: list[int]) -> set[tuple[int, str]]:
        """Return which positions of the stream are logged, each with when the stream took it."""
        found: set[tuple[int, str]] = set()
        for part in _parts(sequences):
            marks = ",".join("?" * len(part))
            found.update(self._connection.execute(f"SELECT sequence, stored_at FROM records WHERE sequence IN ({marks})", part))  # noqa: S608 - only question marks
        return found

    def contents(self, record_ids: list[str]) -> set[tuple[str, bytes | None]]:
        """Return what is logged under these identifiers, as digests; None where the content was erased before a rebuild."""
        found: set[tuple[str, bytes | None]] = set()
        for part in _parts(record_ids):
            marks = ",".join("?" * len(part))
            found.update(self._connection.execute(f"SELECT record_id, digest FROM records WHERE record_id IN ({marks})", part))  # noqa: S608 - only question marks
        return found

    def add(self, rows: list[tuple[Found, Leaf, dict[str, Any] | None, bytes | None]]) -> None:
        """Add leaves with their records, where those can be opened, and the records' digests; all or none."""
        records, cited, found_terms = [], [], []
        for found, leaf, record, digest in rows:
            header = leaf.header
            ids = (header.get("record_id", ""), header.get("request_id"), header.get("trace_id"))
            place = (found.position, found.segment, found.offset, header["stream_sequence"], header["stored_at"])
            tenant = header.get("tenant", "")
            records.append((*place, *ids, digest, tenant, header.get("step"), leaf.key))
            found_terms += [(tenant, kind, value, found.position, ids[1]) for kind, value in terms(record or {}, self._token)]
            cited += [
                (document, version, found.position, header.get("tenant"), header.get("request_id"), header.get("trace_id"))
                for document, version in citations(record or {})
            ]
        with self._connection:
            self._connection.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", records)
            self._connection.executemany("INSERT OR IGNORE INTO cited VALUES (?, ?, ?, ?, ?, ?)", cited)
            self._connection.executemany("INSERT OR IGNORE INTO terms VALUES (?, ?, ?, ?, ?)", found_terms)

    def forget(self, keys: list[str]) -> None:
        """Drop whatever was taken from the sealed part of leaves whose keys were destroyed; nothing of it stays in the file."""
        with self._connection:
            for part in _parts(keys):
                marks = ",".join("?" * len(part))
                which = f"(SELECT position FROM records WHERE key IN ({marks}))"  # noqa: S608 - only question marks
                for table in ("terms", "cited"):
                    self._connection.execute(f"DELETE FROM {table} WHERE position IN {which}", part)  # noqa: S608 - our own names
                self._connection.execute(f"UPDATE records SET digest = NULL WHERE key IN ({marks})", part)  # noqa: S608 - only question marks
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def rows(self, query: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        """Return what a query finds, beside the writer."""
        with closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, timeout=5)) as reading:
            return reading.execute(query, values).fetchall()

    def trace(self, wanted: str) -> list[Found]:
        """Return the leaves of a request or trace id, oldest first."""
        query = "SELECT position, segment, offset FROM records WHERE request_id = ? OR trace_id = ? ORDER BY position"
        return [Found(*row) for row in self.rows(query, (wanted, wanted))]

    def answers(self, document: str, version: str) -> list[Answer]:
        """Return the answers that cited a version, oldest first."""
        query = "SELECT tenant, request_id, trace_id FROM cited WHERE document = ? AND version = ? ORDER BY position"
        return [Answer(*(value or "" for value in row)) for row in self.rows(query, (document, version))]

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def citations(record: dict[str, Any]) -> list[tuple[str, str]]:
    """Return which version of which documents a released answer cited; other records say nothing about it."""
    details = record.get("details")
    if record.get("step") != "release" or record.get("outcome") != "succeeded" or not isinstance(details, dict):
        return []
    cited = [one for one in details.get("citations") or () if isinstance(one, dict)]
    return [(str(one.get("document", "")), str(one.get("version", ""))) for one in cited]


def _parts(values: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(values), _PARAMETERS):
        yield values[start : start + _PARAMETERS]
