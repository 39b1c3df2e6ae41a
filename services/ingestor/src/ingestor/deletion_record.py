"""What is remembered for good of deleted documents: a hash of the name and the moment, in the ledgers that saw them go."""

import hashlib
import sqlite3
from collections.abc import Iterable

DELETIONS = "deletions"
TABLE = f"CREATE TABLE IF NOT EXISTS {DELETIONS} (key_hash TEXT PRIMARY KEY, at_ms INTEGER NOT NULL) WITHOUT ROWID;"


def key_hash(document_key: str) -> str:
    """Return what stands for a document whose name is forgotten as well."""
    return hashlib.sha256(document_key.encode()).hexdigest()


def record(store: sqlite3.Connection, deleted: Iterable[tuple[str, int]]) -> None:
    """Remember document keys and when each was deleted, in milliseconds since 1970; the latest counts."""
    statement = f"INSERT INTO {DELETIONS} VALUES (?, ?) ON CONFLICT (key_hash) DO UPDATE SET at_ms = max(at_ms, excluded.at_ms)"  # noqa: S608 - our own name
    store.executemany(statement, ((key_hash(key), at_ms) for key, at_ms in deleted))


def forget(store: sqlite3.Connection, keys: Iterable[str]) -> None:
    """Forget deletions of documents that are there again."""
    store.executemany(f"DELETE FROM {DELETIONS} WHERE key_hash = ?", ((key_hash(key),) for key in keys))  # noqa: S608 - our own name
