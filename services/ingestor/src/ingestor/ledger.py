"""What was loaded from folders, and which changes still have to be announced; survives a crash."""

import datetime as dt
import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any

from ingestor import deletion_record

_TABLES = """
CREATE TABLE IF NOT EXISTS loaded (collection TEXT, document_key TEXT, version TEXT, hash TEXT, PRIMARY KEY (document_key, version));
CREATE TABLE IF NOT EXISTS changes (id TEXT PRIMARY KEY, body TEXT NOT NULL, done INTEGER NOT NULL, place INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS expected (
    document_key TEXT, version TEXT, at TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (document_key, version)
);
"""


@dataclass(frozen=True)
class Change:
    """One change of one document; intended first, announced once it is searchable."""

    change_id: str
    kind: str
    collection: str
    document_key: str
    document_id: str
    tenant: str
    change: str
    version: str
    hash: str
    in_force: str = ""
    no_longer: str = ""
    supersedes: str = ""
    chunks: int = 0
    document_sha256: str = ""
    reason: str = ""
    index_version: int = 0
    at: str = ""
    # When the version takes effect, where that is later than when it became searchable.
    effective_from: str = ""
    details: dict[str, str] = field(default_factory=dict)


class Ledger:
    """A SQLite file beside the index; safe to use from several threads."""

    def __init__(self, file: Path) -> None:
        """Open or create `file`."""
        file.parent.mkdir(parents=True, exist_ok=True)
        self._lock = Lock()
        self._store = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
        self._store.execute("PRAGMA journal_mode=WAL")
        self._store.execute("PRAGMA synchronous=FULL")
        self._store.executescript(_TABLES + deletion_record.TABLE)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._store.close()

    def loaded(self, collection: str) -> dict[tuple[str, str], str]:
        """Return the hash of each (document key, version) that was loaded from the collection's folder."""
        rows = self._all("SELECT document_key, version, hash FROM loaded WHERE collection = ?", collection)
        return {(key, version): value for key, version, value in rows}

    def remember(self, collection: str, entries: Iterable[tuple[str, str, str]]) -> None:
        """Note document key, version and hash of what was loaded."""
        rows = [(collection, *entry) for entry in entries]
        self._many("INSERT OR REPLACE INTO loaded VALUES (?, ?, ?, ?)", rows)

    def forget(self, collection: str, key: str | None = None) -> None:
        """Drop one document, or all of a collection."""
        if key is None:
            self._many("DELETE FROM loaded WHERE collection = ?", [(collection,)])
        else:
            self._many("DELETE FROM loaded WHERE collection = ? AND document_key = ?", [(collection, key)])

    def intend(self, changes: Iterable[Change]) -> None:
        """Note changes before they are written to the index."""
        self._many(
            "INSERT INTO changes SELECT ?, ?, 0, COALESCE(MAX(place), 0) + 1 FROM changes", [(c.change_id, _body(c)) for c in changes]
        )

    def done(self, changes: Iterable[Change]) -> None:
        """Note that the index holds the changes, and which of them are still to take effect."""
        changes = list(changes)
        with self._writing():
            rows = [(_body(change), change.change_id) for change in changes]
            self._store.executemany("UPDATE changes SET body = ?, done = 1 WHERE id = ?", rows)
            # A withdrawn version stays where it is; what is deleted has none.
            deletion_record.record(self._store, [(c.document_key, _ms(c.at)) for c in changes if c.change == "deleted" and not c.version])
            deletion_record.forget(self._store, [c.document_key for c in changes if c.change != "deleted"])
            self._expect(change for change in changes if change.effective_from)

    def expect(self, changes: Iterable[Change]) -> None:
        """Note versions that are stored and still to take effect."""
        with self._writing():
            self._expect(changes)

    def due(self, now: str) -> list[Change]:
        """Return the versions whose moment has come, earliest first; times are ISO 8601 in UTC with microseconds."""
        return [Change(**json.loads(body)) for (body,) in self._all("SELECT body FROM expected WHERE at <= ? ORDER BY at", now)]

    def take_effect(self, expected: Change, change: Change | None) -> None:
        """Note the change that a version's taking effect is, or that it is none any more; the version is expected no longer."""
        with self._writing():
            self._store.execute("DELETE FROM expected WHERE document_key = ? AND version = ?", (expected.document_key, expected.version))
            if change is not None:
                statement = "INSERT OR IGNORE INTO changes SELECT ?, ?, 1, COALESCE(MAX(place), 0) + 1 FROM changes"
                self._store.execute(statement, (change.change_id, _body(change)))

    def _expect(self, changes: Iterable[Change]) -> None:
        rows = [(change.document_key, change.version, change.effective_from, _body(change)) for change in changes]
        self._store.executemany("INSERT OR REPLACE INTO expected VALUES (?, ?, ?, ?)", rows)

    def drop(self, changes: Iterable[Change]) -> None:
        """Forget changes that were announced or never happened."""
        self._many("DELETE FROM changes WHERE id = ?", [(change.change_id,) for change in changes])

    def pending(self, *, done: bool) -> list[Change]:
        """Return the changes that are searchable but not announced, or those that were only intended, oldest first."""
        rows = self._all("SELECT body FROM changes WHERE done = ? ORDER BY place", int(done))
        return [Change(**json.loads(body)) for (body,) in rows]

    def _all(self, statement: str, *values: object) -> list[Any]:
        with self._lock:
            return self._store.execute(statement, values).fetchall()

    def _many(self, statement: str, rows: list[tuple[Any, ...]]) -> None:
        with self._writing():
            self._store.executemany(statement, rows)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._lock:
            self._store.execute("BEGIN")
            try:
                yield
            except BaseException:
                self._store.execute("ROLLBACK")
                raise
            self._store.execute("COMMIT")


def _ms(moment: str) -> int:
    return int(dt.datetime.fromisoformat(moment).timestamp() * 1000)


def _body(change: Change) -> str:
    return json.dumps(asdict(change))


def searchable(change: Change, index_version: int, at: str) -> Change:
    """Return the change as the index holds it."""
    return replace(change, index_version=index_version, at=at)
