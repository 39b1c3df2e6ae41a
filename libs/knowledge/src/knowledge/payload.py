"""Everything that a hit shows of a chunk as one value, so that engines read one column for it."""

import datetime as dt
from typing import Any

import orjson

from knowledge.schema import COLUMNS, Chunk
from knowledge.visibility import NEVER_OVER, OVER, micros

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_TIMES = frozenset({"effective_from", "superseded_at", "expires_at", "withdrawn_at"})
_SHOWN = tuple(name for name in COLUMNS if name not in {"vector", "search_text"})


def pack(chunk: Chunk) -> bytes:
    """Return what `unpack` takes."""
    return orjson.dumps([_plain(name, getattr(chunk, name)) for name in _SHOWN])


def unpack(payload: bytes | str, vector: list[float] | None = None, search_text: str | None = None) -> Chunk:
    """Return the chunk; `vector` and `search_text` are None where they were not read."""
    fields: dict[str, Any] = dict(zip(_SHOWN, orjson.loads(payload), strict=True), vector=vector, search_text=search_text)
    for name in _TIMES:
        if fields[name] is not None:
            fields[name] = _EPOCH + dt.timedelta(microseconds=fields[name])
    # A search makes hundreds of these, and a frozen class sets its fields ten times slower one by one.
    chunk = Chunk.__new__(Chunk)
    vars(chunk).update(fields)
    return chunk


def over_at(chunk: Chunk) -> int:
    """Return when queries of the present stop to see a chunk, in microseconds since 1970."""
    if chunk.withdrawn_at is not None or chunk.closed_position is not None:
        return OVER
    return min((micros(end) for end in (chunk.superseded_at, chunk.expires_at) if end is not None), default=NEVER_OVER)


def _plain(name: str, value: Any) -> Any:
    return micros(value) if name in _TIMES and value is not None else value
