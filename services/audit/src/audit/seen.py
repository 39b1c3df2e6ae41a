"""Which records the log already holds, so that a repeat is never written twice and nothing new is skipped."""

import hashlib
from collections import OrderedDict
from typing import Any

from chassis.messaging import canonical_json

_RECENT = 50_000
_BLOCK_BITS = 4096


class Seen:
    """The positions in the stream that are logged, and the record ids of the last ones."""

    def __init__(self) -> None:
        self._blocks: dict[int, bytearray] = {}
        self._highest, self._highest_stored_at = 0, ""
        self._ids: OrderedDict[str, bytes] = OrderedDict()

    def holds(self, sequence: int, stored_at: str, record: dict[str, Any]) -> bool:
        """Return whether this record is logged; another record under a known id is not the same."""
        if self._is_new_stream(sequence, stored_at):
            return False
        block = self._blocks.get(sequence // _BLOCK_BITS)
        bit = sequence % _BLOCK_BITS
        if block is not None and block[bit // 8] & (1 << bit % 8):
            return True
        digest = self._ids.get(str(record.get("record_id", "")))
        return digest is not None and digest == _digest(record)

    def add(self, sequence: int, stored_at: str, record: dict[str, Any]) -> None:
        """Remember a record that is on the disk."""
        if self._is_new_stream(sequence, stored_at):
            self._blocks, self._highest = {}, 0
        if sequence > self._highest:
            self._highest, self._highest_stored_at = sequence, stored_at
        bit = sequence % _BLOCK_BITS
        block = self._blocks.setdefault(sequence // _BLOCK_BITS, bytearray(_BLOCK_BITS // 8))
        block[bit // 8] |= 1 << bit % 8
        if record_id := record.get("record_id"):
            self._ids[str(record_id)] = _digest(record)
            if len(self._ids) > _RECENT:
                self._ids.popitem(last=False)

    def _is_new_stream(self, sequence: int, stored_at: str) -> bool:
        """Tell whether the stream was made anew: it counts from 1 again, at a later time than the last one ended."""
        return sequence <= self._highest and stored_at > self._highest_stored_at


def _digest(record: dict[str, Any]) -> bytes:
    return hashlib.blake2b(canonical_json(record), digest_size=16).digest()
