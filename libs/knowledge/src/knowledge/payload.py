"""Everything that a hit shows of a chunk as one value, so that engines read one column for it."""

import datetime as dt
from collections.abc import Callable
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
    # A frozen class sets its fields ten times slower one by one.
    chunk = Chunk.__new__(Chunk)
    vars(chunk).update(_fields(payload), vector=vector, search_text=search_text)
    return chunk


def name_of(payload: bytes) -> str:
    """Return the chunk id alone, which comes first; empty where `payload` is a beginning too short to have it."""
    # Inside a text, a quotation mark has a backslash before it.
    end = payload.find(b'","')
    if end < 0:
        return ""
    name = payload[2:end]
    return str(orjson.loads(b'"%s"' % name)) if b"\\" in name else name.decode()


def unpack_later(chunk_id: str, kind: str, payload: Callable[[], bytes], vector: Callable[[], list[float] | None] | None = None) -> Chunk:
    """Return a chunk of which only name and kind are known; the rest is unpacked when somebody asks for any of it.

    Of two hundred hits a search looks at twenty.
    """
    chunk = _Later.__new__(_Later)
    vars(chunk).update({"chunk_id": chunk_id, "kind": kind, "search_text": None, "_payload": payload, "_vector": vector})
    return chunk


class _Later(Chunk):
    def __getattr__(self, name: str) -> Any:
        if name not in COLUMNS:
            raise AttributeError(name)
        known = vars(self)
        vector = known["_vector"]
        known.update(_fields(known["_payload"]()), vector=vector() if vector is not None else None)
        return known[name]


def _fields(payload: bytes | str) -> dict[str, Any]:
    fields: dict[str, Any] = dict(zip(_SHOWN, orjson.loads(payload), strict=True))
    for name in _TIMES:
        if fields[name] is not None:
            fields[name] = _EPOCH + dt.timedelta(microseconds=fields[name])
    return fields


def over_at(chunk: Chunk) -> int:
    """Return when queries of the present stop to see a chunk, in microseconds since 1970."""
    if chunk.withdrawn_at is not None or chunk.closed_position is not None:
        return OVER
    return min((micros(end) for end in (chunk.superseded_at, chunk.expires_at) if end is not None), default=NEVER_OVER)


def _plain(name: str, value: Any) -> Any:
    return micros(value) if name in _TIMES and value is not None else value
