"""Looks for a document wherever something of it could be left."""

import datetime as dt
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from knowledge.generations import Generations
from knowledge.index import Index, IndexMissingError
from knowledge.schema import Kind, document_key


@dataclass(frozen=True)
class Place:
    """Where a document was looked for, and since when it is not there; `decides` marks the record of the deletion itself."""

    name: str
    absent: bool
    since: dt.datetime | None = None
    decides: bool = False


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
    return [Place(f"ledger {file.name}", not held, max(gone, default=None), decides=True)]
