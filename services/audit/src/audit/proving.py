"""Proofs for outsiders, made from the files alone: that a record is in the log, and that the log only grew."""

import base64
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audit import checkpoints, segments
from audit.trust import Trust, load_signer, load_trust
from chassis.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError
from tlog.notes import Checkpoint, InvalidNoteError, open_checkpoint
from tlog.tiles import MissingTileError, TileReader
from tlog.tree import (
    EMPTY_ROOT,
    InvalidProofError,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    range_hash,
    verify_consistency,
    verify_inclusion,
)

_DAMAGED = "the log does not fit its checkpoints; `strata audit verify` says where"


@dataclass(frozen=True, slots=True)
class Statement:
    """A checkpoint with the note that states it."""

    checkpoint: Checkpoint
    note: str


class Prover:
    """Makes proofs about the log in a folder; whatever it returns it has verified."""

    def __init__(self, folder: Path, trust: Trust | None = None) -> None:
        """Read below `folder`; the public keys default to those in its state folder. Raises NotFoundError when there is no log."""
        if not (folder / checkpoints.SIGNED).exists():
            raise NotFoundError(f"there is no log at {folder}")
        self._folder = folder
        try:
            self._trust = trust if trust is not None else load_trust(folder.parent)
        except InvalidNoteError as error:
            raise FailedPreconditionError(str(error)) from error
        self._tiles = TileReader(folder, lambda start, end: segments.leaf_hashes(folder, start, end))

    def prove(self, record: str) -> dict[str, Any]:
        """Return the proof that a record, by its identifier or else its index, is in the log; raise NotFoundError when it is not."""
        return self.inclusion(*self._locate(record))

    def inclusion(self, index: int, leaf: bytes) -> dict[str, Any]:
        """Return the proof that the log has `leaf` at `index`; raise FailedPreconditionError when it has not."""
        statement = self.covering(index)
        return {
            "checkpoint": statement.note,
            **self.keys(),
            "leaf": base64.b64encode(leaf).decode(),
            "index": index,
            "size": statement.checkpoint.size,
            "proof": _encoded(self.path(index, leaf, statement)),
        }

    def path(self, index: int, leaf: bytes, statement: Statement) -> list[bytes]:
        """Return the audit path of a leaf to the root that is stated; raise FailedPreconditionError when it does not lead there."""
        size, root = statement.checkpoint.size, statement.checkpoint.root
        try:
            proof = inclusion_proof(self._tiles.node, index, size)
            verify_inclusion(leaf_hash(leaf), index, size, proof, root)
        except (InvalidProofError, MissingTileError) as error:
            raise FailedPreconditionError(f"{_DAMAGED}: {error}") from error
        return proof

    def consistency(self, old: int, new: int) -> dict[str, Any]:
        """Return the proof that the log of `new` records begins with the one of `old`; raise InvalidArgumentError for impossible sizes."""
        newest = self.newest().checkpoint.size
        if not 0 <= old <= new <= newest:
            raise InvalidArgumentError(f"sizes {old} and {new} do not fit: give OLD <= NEW <= {newest}")
        before, after = self.stated(old), self.stated(new)
        try:
            proof = consistency_proof(self._tiles.node, old, new)
            verify_consistency(old, new, proof, before.checkpoint.root, after.checkpoint.root)
        except (InvalidProofError, MissingTileError) as error:
            raise FailedPreconditionError(f"{_DAMAGED}: {error}") from error
        return {"old_checkpoint": before.note, "new_checkpoint": after.note, **self.keys(), "proof": _encoded(proof)}

    def checkpoint(self) -> dict[str, Any]:
        """Return the newest checkpoint, the one that witnesses have signed where there is one."""
        entry = checkpoints.last(self._folder / checkpoints.COSIGNED)
        found = self._opened(entry.note) if entry is not None else self.newest()
        root = base64.b64encode(found.checkpoint.root).decode()
        return {"checkpoint": found.note, **self.keys(), "size": found.checkpoint.size, "root": root}

    def _locate(self, record: str) -> tuple[int, bytes]:
        found = segments.find(self._folder, b'"record_id":' + json.dumps(record, ensure_ascii=False).encode())
        if found is not None:
            return found
        if re.fullmatch(r"\d{1,18}", record):
            for line in segments.lines(self._folder, int(record)):
                if line.index == int(record) and line.is_whole:
                    return line.index, line.leaf
        raise NotFoundError(f"no record {record!r} in the log")

    def covering(self, index: int) -> Statement:
        """Return the newest checkpoint that holds a leaf, a cosigned one if there is any."""
        for name in (checkpoints.COSIGNED, checkpoints.SIGNED):
            entry = checkpoints.last(self._folder / name)
            if entry is not None and entry.size > index:
                return self._opened(entry.note)
        raise NotFoundError(f"record {index} is not in any checkpoint yet")

    def newest(self) -> Statement:
        """Return the newest checkpoint that the log itself has signed."""
        entry = checkpoints.last(self._folder / checkpoints.SIGNED)
        if entry is None:
            raise NotFoundError(f"the log at {self._folder} has no checkpoint")
        return self._opened(entry.note)

    def stated(self, size: int) -> Statement:
        """Return the checkpoint of exactly `size` records: as cosigned, as signed then, or signed now where the log's key is here."""
        for name in (checkpoints.COSIGNED, checkpoints.SIGNED):
            if (entry := checkpoints.find(self._folder / name, size)) is not None:
                return self._opened(entry.note)
        try:
            signer = load_signer(self._folder.parent)
        except (OSError, ValueError) as error:
            raise NotFoundError(f"no checkpoint of {size} records was kept, and the log's key is not here to sign one") from error
        found = Checkpoint(signer.name, size, range_hash(self._tiles.node, 0, size) if size else EMPTY_ROOT)
        return Statement(found, signer.sign(found.text()))

    def _opened(self, content: str) -> Statement:
        for key in self._trust.log:
            try:
                found, note = open_checkpoint(content, key)
                note.verified(self._trust.witnesses)
            except InvalidNoteError:
                continue
            return Statement(found, content if key == self._trust.log[-1] else self._signed_again(content, note.text))
        raise FailedPreconditionError(_DAMAGED)

    def _signed_again(self, content: str, text: str) -> str:
        """Add the present key's signature to a note of an earlier one, so that one verifier key opens all; without the key it stays."""
        try:
            return content + load_signer(self._folder.parent).line(text)
        except (OSError, ValueError):
            return content

    def keys(self) -> dict[str, Any]:
        """Return the public keys of the log and of its witnesses, as text."""
        return {"verifier_key": str(self._trust.log[-1]), "witness_keys": [str(key) for key in self._trust.witnesses]}


def _encoded(proof: list[bytes]) -> list[str]:
    return [base64.b64encode(part).decode() for part in proof]
