"""The default driver of change events: PostgreSQL's logical replication as Debezium envelopes on the bus."""

from ingestor.postgres.declaration import ReplicationDeclaration
from ingestor.postgres.reading import PostgresReader
from ingestor.postgres.signals import ColumnMissing, Signal, SlotLagging, SlotLost, SnapshotTaken, SourceBlocked
from ingestor.postgres.source import ReplicationSource, SourceStatus

__all__ = [
    "ColumnMissing",
    "PostgresReader",
    "ReplicationDeclaration",
    "ReplicationSource",
    "Signal",
    "SlotLagging",
    "SlotLost",
    "SnapshotTaken",
    "SourceBlocked",
    "SourceStatus",
]
