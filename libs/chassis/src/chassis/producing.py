"""Numbers for records, so that whoever reads them sees when one never arrived."""

import heapq
import secrets
from collections import OrderedDict
from typing import Any

_REMEMBERED = 10_000


class Producer:
    """The name and the counter of one process that publishes records; a record keeps its number when it is published again."""

    def __init__(self, service: str) -> None:
        """Count from 1 under a name that no other process has."""
        self.name = f"{service}/{secrets.token_hex(6)}"
        self._last = 0
        self._free: list[int] = []
        self._failed: OrderedDict[str, int] = OrderedDict()

    def number(self, record_id: str) -> int:
        """Return the number of a record: its own from an attempt that failed, else the next."""
        known = self._failed.pop(record_id, 0)
        if known:
            return known
        if self._free:
            return heapq.heappop(self._free)
        self._last += 1
        return self._last

    def stamp(self, message: Any) -> int:
        """Give a message that can be numbered its number, unless it has one; return the new number, or 0."""
        if "producer_sequence" not in message.DESCRIPTOR.fields_by_name or message.producer_sequence:
            return 0
        message.producer, message.producer_sequence = self.name, self.number(message.record_id)
        return int(message.producer_sequence)

    def stored(self, number: int, *, duplicate: bool) -> None:
        """Take a number back that the stream did not keep, for it knew the record already under an earlier one."""
        if number and duplicate:
            heapq.heappush(self._free, number)

    def failed(self, record_id: str, number: int) -> None:
        """Remember the number of a record that was perhaps not stored, for when it is made and published again."""
        if number and record_id:
            self._failed[record_id] = number
            if len(self._failed) > _REMEMBERED:
                self._failed.popitem(last=False)
