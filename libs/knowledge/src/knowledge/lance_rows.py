"""How a chunk is stored in a LanceDB table: columns that are searched or filtered, and everything that a hit shows in one."""

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from encoders.encoder import DIMENSIONS
from knowledge.payload import over_at, pack, unpack
from knowledge.schema import COLUMNS, Chunk, Kind
from knowledge.visibility import scope

# Part of the names of tables; another set of columns never meets an old table.
VERSION = "3"
# The version whose tables are copied; it had a column for every field.
_BEFORE = "2"
_BATCH = 2000
# Every column read costs as much as some fifty rows, so what a hit shows is one of them.
WHOLE = ["payload", "search_text", "vector"]
_TIME = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema([
    pa.field("chunk_id", pa.string(), nullable=False),
    pa.field("document_key", pa.string(), nullable=False),
    pa.field("collection", pa.string(), nullable=False),
    pa.field("search_text", pa.string(), nullable=False),
    pa.field("vector", pa.list_(pa.float32(), DIMENSIONS)),
    pa.field("version", pa.string(), nullable=False),
    pa.field("effective_from", _TIME, nullable=False),
    pa.field("superseded_at", _TIME),
    pa.field("expires_at", _TIME),
    pa.field("withdrawn_at", _TIME),
    pa.field("metadata", pa.list_(pa.string()), nullable=False),
    pa.field("content_hash", pa.string(), nullable=False),
    pa.field("metadata_hash", pa.string(), nullable=False),
    pa.field("access_hash", pa.string(), nullable=False),
    pa.field("position", pa.int64(), nullable=False),
    pa.field("closed_position", pa.int64()),
    # Made of the others, so that the predicate of most queries is three clauses.
    pa.field("scope", pa.string(), nullable=False),
    pa.field("over_at", pa.int64(), nullable=False),
    pa.field("payload", pa.binary(), nullable=False),
])  # fmt: skip
_OWN = tuple(name for name in SCHEMA.names if name in COLUMNS)


def table_name(kind: str, encoder: str) -> str:
    """Return the table of one kind; vectors of two encoders never share one."""
    return f"{kind}-{VERSION}_{encoder}"


def row_of(chunk: Chunk) -> dict[str, Any]:
    """Return the row of a chunk by column name."""
    return {
        **{name: getattr(chunk, name) for name in _OWN},
        "scope": scope(chunk.collection, chunk.tenant, chunk.label_key),
        "over_at": over_at(chunk),
        "payload": pack(chunk),
    }


def chunk_of(stored: Mapping[str, Any]) -> Chunk:
    """Return the chunk of a row; `vector` and `search_text` are None where they were not read."""
    return unpack(stored["payload"], stored.get("vector"), stored.get("search_text"))


def opened(database: Any, kind: Kind, encoder: str) -> Any:
    """Open a table for writing; make it where it is missing, out of the one of the version before where that is there.

    The copy is one commit, so a crash leaves either no new table or a whole one. The old one is read into memory.
    """
    name, before = table_name(kind, encoder), f"{kind}-{_BEFORE}_{encoder}"
    there = set(database.list_tables(limit=10_000).tables)
    if before in there:
        if name not in there:
            database.create_table(name, data=_copied(database.open_table(before).to_arrow()), schema=SCHEMA, on_bad_vectors="null")
        database.drop_table(before)
    return database.create_table(name, schema=SCHEMA, exist_ok=True)


def _copied(old: pa.Table) -> Iterator[pa.RecordBatch]:
    for batch in old.to_batches(_BATCH):
        rows = [row_of(Chunk(**{name: read.get(name) for name in COLUMNS})) for read in batch.to_pylist()]
        yield from pa.Table.from_pylist(rows, schema=SCHEMA).to_batches()
