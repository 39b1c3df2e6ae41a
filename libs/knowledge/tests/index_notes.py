"""Chunks that tests of the index put in, and what they look for."""

import datetime as dt
from dataclasses import replace

import numpy as np

from knowledge.index import Index
from knowledge.preparation import cut
from knowledge.schema import Chunk, Document, Kind
from knowledge.visibility import Visibility

NOW = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
VECTOR = np.full(384, 384**-0.5, dtype=np.float32)


def chunks(name: str, text: str = "the kettle whistles", **changes: object) -> list[Chunk]:
    """Return the chunks of a note, with `changes` of their columns."""
    document = Document("notes", Kind.FLUID, name, "Title", text, effective_from=NOW - DAY, tenant=str(changes.pop("tenant", "")))
    return [replace(chunk, **{"vector": VECTOR.tolist(), **changes}) for chunk in cut(document, "enc", NOW)]


def see(**changes: object) -> Visibility:
    """Return what an employee of acme sees now, with `changes`."""
    return replace(Visibility("acme", frozenset({"public"}), ("notes",), NOW), **changes)


def found(index: Index, visible: Visibility, query: str = "kettle") -> list[str]:
    """Return what both legs find, which must be the same here."""
    words = sorted(hit.chunk.document_id for hit in index.lexical(query, visible, 10))
    vectors = sorted(hit.chunk.document_id for hit in index.nearest(VECTOR, visible, 10))
    assert words == vectors
    return words


def by_words(index: Index, visible: Visibility, query: str = "kettle") -> list[str]:
    """Return what the words find, best first."""
    return [hit.chunk.document_id for hit in index.lexical(query, visible, 10)]


def put(index: Index, *groups: list[Chunk], kind: Kind = Kind.FLUID, positions: dict[str, int] | None = None) -> int:
    """Store groups of chunks, one for each document, in one commit."""
    return index.replace(kind, {group[0].document_key: group for group in groups}, positions)


def key(name: str) -> str:
    """Return the key of a note."""
    return chunks(name)[0].document_key
