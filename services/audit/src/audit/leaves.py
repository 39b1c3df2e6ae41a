"""A leaf of the log: the canonical JSON (RFC 8785) of one record, its header in the clear, the rest sealed."""

import base64
import binascii
from dataclasses import dataclass
from typing import Any

import orjson

from evidence.sealing import SealedError, open_sealed, record_key, seal

VERSION = 1
# What of a record stays readable for good; whatever else it has may hold personal data and is sealed.
CLEAR = (
    "tenant", "record_id", "request_id", "trace_id", "service", "step", "step_id", "attempt", "outcome", "phase", "code",
    "producer", "producer_sequence", "started_at",
)  # fmt: skip
_NUMBERS = frozenset({"attempt", "producer_sequence"})


class InvalidLeafError(ValueError):
    """The bytes are not a leaf that this program wrote."""


def canonical(value: dict[str, Any]) -> bytes:
    """Return JSON with sorted keys and no spaces; of strings and whole numbers under ASCII names that is what RFC 8785 asks for."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


@dataclass(frozen=True, slots=True)
class Leaf:
    """A record as the log holds it: what is readable by all, and what only its key opens."""

    header: dict[str, Any]
    sealed: str

    @property
    def key(self) -> str:
        """Identifier of the key that opens it."""
        return str(self.header["key"])


@dataclass(frozen=True, slots=True)
class Place:
    """Where a leaf comes from: position in the stream, when the stream took it, epoch of the writer, identifier of the key."""

    sequence: int
    stored_at: str
    epoch: int
    key: str


def subject_of(record: dict[str, Any]) -> str:
    """Return whom a record is about: its user, or without one its session or request."""
    user, session = record.get("user"), record.get("session_id")
    if user:
        return f"user/{user}"
    return f"session/{session}" if session else f"request/{record.get('request_id') or record.get('record_id', '')}"


def encode(record: dict[str, Any], place: Place, key: bytes) -> tuple[Leaf, bytes]:
    """Return the leaf of a record and its bytes."""
    header: dict[str, Any] = {name: int(record[name]) if name in _NUMBERS else record[name] for name in CLEAR if record.get(name)}
    if milliseconds := record.get("duration_ms"):
        header["duration_us"] = round(float(milliseconds) * 1000)
    header |= {"v": VERSION, "stream_sequence": place.sequence, "stored_at": place.stored_at, "epoch": place.epoch, "key": place.key}
    hidden = {name: value for name, value in record.items() if name not in CLEAR and name != "duration_ms"}
    sealed = base64.b64encode(seal(key, canonical(hidden), canonical(header))).decode()
    return Leaf(header, sealed), canonical({**header, "sealed": sealed})


def decode(leaf: bytes) -> Leaf:
    """Return the leaf of a line without its newline; raise InvalidLeafError when it is none."""
    try:
        header = orjson.loads(leaf)
        if header["v"] != VERSION:
            raise InvalidLeafError(f"version {header['v']!r} of a leaf is unknown; this program reads {VERSION}")
        return Leaf(header, str(header.pop("sealed")))
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidLeafError(f"not a leaf: {error!r}") from error


def clear_record(leaf: Leaf) -> dict[str, Any]:
    """Return what of a record is readable without a key."""
    record = {name: leaf.header[name] for name in CLEAR if name in leaf.header}
    if microseconds := leaf.header.get("duration_us"):
        record["duration_ms"] = microseconds / 1000
    return record


def open_record(leaf: Leaf, key: bytes) -> dict[str, Any]:
    """Return the whole record; raise SealedError when its subject's key does not open it."""
    try:
        sealed = base64.b64decode(leaf.sealed, validate=True)
        hidden = orjson.loads(open_sealed(record_key(key, sealed), sealed, canonical(leaf.header)))
    except (SealedError, ValueError, binascii.Error) as error:
        raise SealedError(f"record {leaf.header.get('record_id')!r} cannot be opened with key {leaf.key}: {error}") from error
    return {**clear_record(leaf), **hidden}


def own_key(leaf: Leaf, key: bytes) -> bytes:
    """Return the key that opens this record alone, for whoever may see it and nothing else of its subject."""
    return record_key(key, base64.b64decode(leaf.sealed))
