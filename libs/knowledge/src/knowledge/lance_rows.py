"""How a chunk is stored in a LanceDB table: columns that are searched or filtered, and everything that a hit shows in one."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
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
_TIME, _VECTOR = pa.timestamp("us", tz="UTC"), pa.list_(pa.float32(), DIMENSIONS)
SCHEMA = pa.schema([
    pa.field("chunk_id", pa.string(), nullable=False),
    pa.field("document_key", pa.string(), nullable=False),
    pa.field("collection", pa.string(), nullable=False),
    pa.field("search_text", pa.string(), nullable=False),
    pa.field("vector", _VECTOR),
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
_OWN = tuple(name for name in SCHEMA.names if name in COLUMNS and name != "vector")
_MADE = {
    "scope": lambda chunk: scope(chunk.collection, chunk.tenant, chunk.label_key),
    "over_at": over_at,
    "payload": pack,
}


def table_name(kind: str, encoder: str) -> str:
    """Return the table of one kind; vectors of two encoders never share one."""
    return f"{kind}-{VERSION}_{encoder}"


def rows_of(chunks: Iterable[Chunk]) -> pa.Table:
    """Return the rows of chunks, made column by column."""
    chunks = list(chunks)
    columns: dict[str, Any] = {name: [getattr(chunk, name) for chunk in chunks] for name in _OWN}
    columns |= {name: [make(chunk) for chunk in chunks] for name, make in _MADE.items()}
    columns["vector"] = _column([chunk.vector for chunk in chunks])
    return pa.table(columns, schema=SCHEMA)


def chunks_of(read: pa.Table) -> list[Chunk]:
    """Return the chunks of rows with the columns of `WHOLE`."""
    columns = (read["payload"].to_pylist(), vectors_of(read["vector"]), read["search_text"].to_pylist())
    return [unpack(payload, vector, text) for payload, vector, text in zip(*columns, strict=True)]


def vectors_of(column: pa.ChunkedArray) -> list[list[float] | None]:
    """Return the vectors of a column as lists; one array of numbers for all is many times faster than one value after the other."""
    found: list[list[float] | None] = []
    for part in column.chunks:
        there = part.is_valid().to_numpy(zero_copy_only=False)
        numbers = iter(part.drop_null().flatten().to_numpy().reshape(-1, DIMENSIONS).tolist())
        found += [next(numbers) if is_there else None for is_there in there]
    return found


def _column(vectors: list[list[float] | None]) -> pa.FixedSizeListArray:
    numbers = np.zeros((len(vectors), DIMENSIONS), dtype=np.float32)
    for row, vector in zip(numbers, vectors, strict=True):
        if vector is not None:
            row[:] = vector
    missing = pa.array([vector is None for vector in vectors], pa.bool_())
    return pa.FixedSizeListArray.from_arrays(pa.array(numbers.ravel()), type=_VECTOR, mask=missing)


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
        yield from rows_of(Chunk(**{name: read.get(name) for name in COLUMNS}) for read in batch.to_pylist()).to_batches()
