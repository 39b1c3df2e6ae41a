"""What an operator sees of a source of change events."""

import datetime as dt
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from ingestor.cdc.drift import Drift
from ingestor.cdc.freshness import Lag
from ingestor.fingerprints import Fingerprint


class SourceRows(Protocol):
    """The rows of a table as a source has them at one moment."""

    @property
    def position(self) -> int:
        """A place below which every change is in these rows; what was changed behind it is not looked at."""
        ...

    @property
    def settled(self) -> int:
        """A place up to which everything was committed that is in these rows."""
        ...

    async def buckets(self) -> Mapping[int, Fingerprint]:
        """Return number and sum of hashes of the rows of each bucket that has any, as `ingestor.fingerprints` says."""
        ...

    def rows(self, buckets: Collection[int]) -> AsyncGenerator[Mapping[str, Any], None]:
        """Yield the rows of some buckets, values as the source's driver sends them."""
        ...


class RowReader(Protocol):
    """Whatever can read the rows of a source itself."""

    def open(self, table: str, key: Sequence[str]) -> AbstractAsyncContextManager[SourceRows]:
        """Open `schema.table` as it is now; `key` names the columns that choose a row's bucket."""
        ...


class Resnapshot(Protocol):
    """Whoever can make a source send all its rows again."""

    async def __call__(self, source: str, reason: str) -> None:
        """Ask for a new snapshot."""
        ...


@dataclass(frozen=True)
class SourceHealth:
    """The health of one source; counts since the ledger was made."""

    name: str
    state: str
    collections: tuple[str, ...]
    position: int
    last_change_at: dt.datetime | None
    lag: Lag
    sla_seconds: float
    sla_holds: bool
    applied: int
    dead: int
    embedded: int
    without_vector: int
    drift: Drift
    reconciled_at: dt.datetime | None
    problem: str = ""


@dataclass
class Noted:
    """What the feed remembers of a source between two looks."""

    problem: str = ""
    drift: Drift = field(default_factory=Drift)
    reconciled_at: dt.datetime | None = None
