"""What an operator sees of a source of change events."""

import datetime as dt
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ingestor.cdc.drift import Drift
from ingestor.cdc.freshness import Lag


@dataclass(frozen=True)
class SourceRow:
    """A row as a source has it; `position` is a place below which every change of it is in these values."""

    values: Mapping[str, Any]
    position: int


class RowReader(Protocol):
    """Whatever can read the rows of a source itself."""

    def rows(self, table: str) -> AsyncIterator[SourceRow]:
        """Yield every row of `schema.table`, values as its driver sends them."""
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
