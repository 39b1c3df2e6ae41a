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
