"""The numbers that producers give their records, so that one which never arrived shows."""

from dataclasses import dataclass, field
from typing import Any

_MOST_NAMED = 100


@dataclass
class _Seen:
    """Numbers of one producer: all up to `through`, and some beyond."""

    through: int = 0
    beyond: set[int] = field(default_factory=set)

    def add(self, number: int) -> None:
        """Take a number, in any order."""
        if number > self.through:
            self.beyond.add(number)
        while self.through + 1 in self.beyond:
            self.through += 1
            self.beyond.discard(self.through)


class Producers:
    """Which numbers of which producer the log holds."""

    def __init__(self) -> None:
        """Know nobody yet."""
        self._seen: dict[str, _Seen] = {}

    def add(self, header: dict[str, Any]) -> None:
        """Take the header of a record; one without a producer says nothing."""
        producer, number = header.get("producer"), header.get("producer_sequence")
        if isinstance(producer, str) and producer and type(number) is int:
            self._seen.setdefault(producer, _Seen()).add(number)

    def gaps(self) -> tuple[str, ...]:
        """Return the numbers that are missing between those that came, as `producer: first-last`; at most 100."""
        found = []
        for producer, seen in sorted(self._seen.items()):
            expected = seen.through + 1
            for number in sorted(seen.beyond):
                if number > expected:
                    found.append(f"{producer}: {expected}-{number - 1}")
                expected = number + 1
        return tuple(found[:_MOST_NAMED])


def repeat_note(record: dict[str, Any]) -> dict[str, Any] | None:
    """Return the note that a producer's number was a repeat, so that no gap shows; None when the record has no number."""
    producer, number = record.get("producer"), record.get("producer_sequence")
    if not producer or not number:
        return None
    kept: dict[str, Any] = {
        name: record[name] for name in ("tenant", "request_id", "trace_id", "service", "producer", "producer_sequence") if name in record
    }
    note = {"record_id": f"repeat/{producer}/{number}", "step": "repeat", "outcome": "skipped", "details": {"of": record.get("record_id")}}
    return {**kept, **note}
