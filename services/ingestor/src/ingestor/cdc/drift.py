"""Compares what the index holds with what the ledger says that it should, by bucket hashes, and mends what differs."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

from ingestor.cdc.applying import Applier
from ingestor.cdc.mapping import Table
from ingestor.cdc.rows import Row, Rows
from ingestor.cdc.templates import MappingError
from ingestor.library import Applied, Library, Upsert
from knowledge.index import Entry, Index
from knowledge.schema import Kind, digest

BUCKETS = 256
PAGE = 200


@dataclass(frozen=True)
class Drift:
    """What a comparison found and mended, in documents; `embedded` in texts."""

    missing: int = 0
    surplus: int = 0
    stale: int = 0
    repaired: int = 0
    embedded: int = 0
    buckets: int = 0
    differing: int = 0

    def __add__(self, other: "Drift") -> "Drift":
        """Return both together."""
        return Drift(*(getattr(self, part.name) + getattr(other, part.name) for part in fields(self)))


def holdings(index: Index, collection: str) -> dict[str, tuple[str, int]]:
    """Return the hash and the number of chunks of every document of a collection, by its key.

    It may be older than what the ledger says by the time that both are compared.
    """
    entries: dict[str, list[Entry]] = {}
    for entry in index.inventory(Kind.FLUID, collection):
        chunks = entries.setdefault(entry.document_key, [])
        if not entry.closed:
            chunks.append(entry)
    return {key: (_hash(some), len(some)) for key, some in entries.items()}


def differing(expected: Iterable[tuple[str, str, int]], held: Mapping[str, tuple[str, int]]) -> tuple[list[str], int]:
    """Return the documents in which both differ, and the number of buckets that did."""
    ours: dict[int, list[tuple[str, str, int]]] = {}
    theirs: dict[int, list[tuple[str, str, int]]] = {}
    for row in expected:
        ours.setdefault(bucket(row[0]), []).append(row)
    for key, (value, chunks) in held.items():
        theirs.setdefault(bucket(key), []).append((key, value, chunks))
    different = [n for n in range(BUCKETS) if _digest(ours.get(n, ())) != _digest(theirs.get(n, ()))]
    keys = {key for n in different for key, _, _ in set(ours.get(n, ())) ^ set(theirs.get(n, ()))}
    return sorted(keys), len(different)


def bucket(key: str) -> int:
    """Return the bucket of a document."""
    return hashlib.blake2b(key.encode(), digest_size=1).digest()[0]


class Mender:
    """Writes documents again, or removes them, where the index is not what the ledger says; used by the thread of the ledger."""

    def __init__(self, applier: Applier, rows: Rows, library: Library) -> None:
        """Trust `rows`."""
        self._applier, self._rows, self._library = applier, rows, library

    def mend(self, table: Table, keys: Sequence[str], held: Mapping[str, tuple[str, int]], *, remove: bool) -> tuple[Drift, Applied]:
        """Bring up to a page of documents to what the ledger says now; `remove` says whether it may be trusted that others are none.

        Vectors are taken from what is stored; texts without one are left to the embedding lane and counted.
        """
        rows = self._rows.by_documents(table.collection.name, keys)
        upserts: list[Upsert] = []
        removals: dict[str, int] = {}
        for key in keys:
            if (row := rows.get(key)) is None:
                if remove and key in held:
                    removals[key] = 0
                continue
            try:
                upsert = self._applier.target(row)
            except MappingError:
                # What is held was said before, and is kept until the row can be read.
                continue
            if upsert is not None:
                upserts.append(upsert)
            elif key in held and not row.missing:
                removals[key] = row.position
        applied = self._library.apply(upserts, removals, restore=True)
        missing = sum(key not in held for key in applied.written)
        texts = {text for some in applied.waiting.values() for text in some}
        count = len(applied.written) + len(applied.removed)
        drift = Drift(missing, len(applied.removed), len(applied.written) - missing, count, len(texts))
        self._note(table, rows, applied)
        return drift, applied

    def _note(self, table: Table, rows: Mapping[str, Row], applied: Applied) -> None:
        """Take over hashes that a change of the software altered, and copies that a lost ledger knew."""
        with self._rows.transaction():
            self._rows.remember_history((key, place, table.kept_until_ms()) for key, place in applied.closed)
            for key, (chunks, value) in applied.held.items():
                row = rows.get(key)
                if row is not None and (row.chunks, row.hash) != (chunks, value):
                    row.chunks, row.hash = chunks, value
                    self._rows.put([row])


def _hash(entries: Sequence[Entry]) -> str:
    hashes = {digest(entry.content_hash, entry.metadata_hash, entry.access_hash) for entry in entries}
    return hashes.pop() if len(hashes) == 1 else "mixed"


def _digest(rows: Iterable[tuple[str, str, int]]) -> bytes:
    value = hashlib.blake2b(digest_size=16)
    for row in sorted(rows):
        value.update(repr(row).encode())
    return value.digest()
