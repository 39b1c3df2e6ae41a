"""What the last read of documents said of their rows, so that the write that follows need not ask again."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import NamedTuple


class Stored(NamedTuple):
    """Place of the latest change to the row, a change of its vector included, and of the change that its chunk is of."""

    version: int
    position: int


@dataclass
class Held:
    """What the index holds of a document: its rows by name, that which a deletion leaves included."""

    rows: dict[str, Stored] = field(default_factory=dict)

    @property
    def place(self) -> int:
        """Place of the latest change, a deletion included."""
        return max((row.version for row in self.rows.values()), default=0)


class LastRead:
    """Rows by document key, forgotten with every write; safe to use from several threads."""

    def __init__(self) -> None:
        """Know nothing."""
        self._lock, self._writes = Lock(), 0
        self._held: Mapping[str, Held] = {}

    def begin(self) -> int:
        """Return what `keep` needs to tell whether anything was written while a read went on."""
        with self._lock:
            return self._writes

    def keep(self, begun: int, held: Mapping[str, Held], *, again: bool) -> None:
        """Take what a read found that began at `begun`, unless something was written since.

        It takes the place of the read before; where some of that was only read `again`, of what that found of the same documents.
        """
        with self._lock:
            if begun == self._writes:
                self._held = {key: held.get(key, before) for key, before in self._held.items()} if again else held

    def forget(self) -> None:
        """Note the beginning or the end of a write."""
        with self._lock:
            self._writes += 1
            self._held = {}

    def take(self) -> Mapping[str, Held]:
        """Return what is known; who changes documents names them all, so that those that are missing here are read."""
        with self._lock:
            return self._held
