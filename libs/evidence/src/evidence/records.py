"""One record of the log as evidence: its leaf, the proof that the log has it, and the key that opens it alone."""

import base64
import json
from dataclasses import dataclass
from typing import Any

from evidence.sealing import SealedError, open_sealed
from tlog.notes import COSIGNATURE, Checkpoint, InvalidNoteError, Verifier, open_checkpoint
from tlog.tree import leaf_hash, verify_inclusion

KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Signed:
    """A checkpoint that the log signed, and which of the trusted witnesses did too, with their times in Unix seconds."""

    checkpoint: Checkpoint
    witnesses: dict[str, int]


def canonical(value: object) -> bytes:
    """Return JSON with sorted keys and no spaces, as leaves and statements are written."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def decoded(text: str) -> bytes:
    """Return what base64 text stands for; raise ValueError for anything else."""
    return base64.b64decode(text, validate=True)


def encoded(content: bytes) -> str:
    """Return base64 text."""
    return base64.b64encode(content).decode()


def open_signed(note: str, keys: list[Verifier]) -> Signed:
    """Return the checkpoint that one of the log's keys among `keys` signed; raise InvalidNoteError when none did."""
    failure: Exception = InvalidNoteError("no key of a log is given")
    for log in (key for key in keys if key.algorithm != COSIGNATURE):
        try:
            found, parsed = open_checkpoint(note, log)
        except InvalidNoteError as error:
            failure = error
        else:
            return Signed(found, parsed.verified(key for key in keys if key.algorithm == COSIGNATURE))
    raise InvalidNoteError(str(failure))


def check_included(leaf: bytes, index: int, proof: list[str], checkpoint: Checkpoint) -> None:
    """Check that the leaf is the one at `index`; raise InvalidProofError when the proof does not show it."""
    verify_inclusion(leaf_hash(leaf), index, checkpoint.size, [decoded(part) for part in proof], checkpoint.root)


def header_of(leaf: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the readable part of a leaf and its sealed one; raise ValueError or KeyError when it is no leaf."""
    header = json.loads(leaf)
    return header, decoded(header.pop("sealed"))


def opened(leaf: bytes, key: str) -> dict[str, Any]:
    """Return header and sealed part of a leaf as one record; raise SealedError when `key` (base64) is not this record's."""
    header, sealed = header_of(leaf)
    raw = decoded(key)
    if len(raw) != KEY_BYTES:
        raise SealedError(f"a record's key has {KEY_BYTES} bytes, not {len(raw)}")
    hidden: dict[str, Any] = json.loads(open_sealed(raw, sealed, canonical(header)))
    return {**header, **hidden}
