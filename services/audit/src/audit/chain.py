"""One line of the log: a record bound by SHA-256 to all that came before it."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from chassis.messaging import canonical_json

GENESIS = "0" * 64
_SUFFIX = b',"hash":"%s"}'
_SUFFIX_LENGTH = len(_SUFFIX) - 2 + 64


class DamagedLineError(ValueError):
    """The line is not what the writer wrote; the message says in which way."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A record with its place in the chain and in the stream that it came from."""

    index: int
    sequence: int
    stored_at: str
    previous_hash: str
    record: dict[str, Any]
    hash: str


def encode(index: int, previous_hash: str, record: dict[str, Any], *, sequence: int, stored_at: str) -> tuple[bytes, str]:
    """Return the line of an entry, without its newline, and its hash."""
    body = canonical_json(
        {"index": index, "previous_hash": previous_hash, "record": record, "sequence": sequence, "stored_at": stored_at},
    )
    digest = hashlib.sha256(body).hexdigest()
    return body[:-1] + _SUFFIX % digest.encode(), digest


def decode(line: bytes) -> Entry:
    """Return the entry of a line; raise DamagedLineError when any byte of it is not as written."""
    body = line[:-_SUFFIX_LENGTH] + b"}"
    digest = hashlib.sha256(body).hexdigest()
    # Comparing the suffix too leaves no byte of the line outside of what is checked.
    if line[-_SUFFIX_LENGTH:] != _SUFFIX % digest.encode():
        raise DamagedLineError("its content does not match its hash")
    try:
        return Entry(**json.loads(body), hash=digest)
    except (ValueError, TypeError) as error:
        raise DamagedLineError(f"it is not an entry: {error}") from error
