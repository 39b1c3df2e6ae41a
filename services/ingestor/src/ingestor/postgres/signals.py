"""What a replication source tells the process that it runs in."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SlotLost:
    """The slot no longer holds every change since the last one published; a new snapshot follows."""

    source: str
    slot: str
    reason: str


@dataclass(frozen=True)
class SlotLagging:
    """The slot holds back more of the source's log than it may."""

    source: str
    slot: str
    lag_bytes: int
    bound_bytes: int


@dataclass(frozen=True)
class SnapshotTaken:
    """Every row of the declared tables was published, as of one position."""

    source: str
    snapshot_id: str
    lsn: int
    rows: dict[str, int]


@dataclass(frozen=True)
class ColumnMissing:
    """A table lost a column that the declaration needs."""

    source: str
    table: str
    column: str


@dataclass(frozen=True)
class SourceBlocked:
    """Somebody must change something before the source can be read; it is tried again meanwhile."""

    source: str
    code: str
    message: str


Signal = SlotLost | SlotLagging | SnapshotTaken | ColumnMissing | SourceBlocked
