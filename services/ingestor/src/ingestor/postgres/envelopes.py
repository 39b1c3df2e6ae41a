"""Debezium's JSON envelope, without schemas, of one change, and the control events between them."""

import json
import re
import time
from dataclasses import dataclass

from contracts.subjects import CDC_PREFIX
from ingestor.postgres.pgoutput import UNCHANGED, Row
from ingestor.postgres.values import Converter, Json

UNAVAILABLE = "__debezium_unavailable_value"
CONTROL_SCHEMA = "strata"
_NOT_IN_A_TOKEN = re.compile(r"[^A-Za-z0-9_-]")

JsonRow = dict[str, Json]


@dataclass(frozen=True, slots=True)
class Table:
    """How the rows of a table are read: its columns with their converters, and which of them are the key."""

    schema: str
    name: str
    columns: tuple[tuple[str, Converter], ...]
    key: frozenset[str]

    @property
    def full_name(self) -> str:
        """Schema and name, as in the declaration."""
        return f"{self.schema}.{self.name}"

    def row(self, values: Row) -> JsonRow:
        """Return a whole row; what was not sent because it did not change is marked as Debezium marks it."""
        return {
            name: None if value is None else UNAVAILABLE if value is UNCHANGED else convert(value)
            for (name, convert), value in zip(self.columns, values, strict=True)
        }

    def key_of(self, row: JsonRow) -> JsonRow:
        """Return the key columns of a row, in the order of the table."""
        return {name: row[name] for name, _convert in self.columns if name in self.key}


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the source's log a change stands."""

    lsn: int
    commit_lsn: int
    committed_milliseconds: int
    transaction: int | None
    snapshot: str = "false"
    previous_commit_lsn: int | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """What is published: the body, the subject, the identity by which the stream knows a repeat."""

    subject: str
    message_id: str
    body: bytes
    # What stands in for a body that the bus does not take.
    without_row: bytes = b""


def to_bytes(value: object) -> bytes:
    """Return compact JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def now_milliseconds() -> int:
    """Return the time since 1970 in milliseconds."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True)
class EnvelopeWriter:
    """Writes the envelopes of one source."""

    source: str
    database: str
    slot: str

    def subject(self, schema: str, table: str) -> str:
        """Return the subject of a table's events; what cannot stand in a token becomes `_`."""
        return f"{CDC_PREFIX}.{self.source}.{_NOT_IN_A_TOKEN.sub('_', schema)}.{_NOT_IN_A_TOKEN.sub('_', table)}"

    def change(
        self, table: Table, op: str, place: Place, message_id: str, *, before: JsonRow | None = None, after: JsonRow | None = None
    ) -> Event:
        """Return the event of one change (`c`, `u`, `d`), one row of a snapshot (`r`) or one emptied table (`t`)."""
        row = after if after is not None else before
        key = None if row is None else table.key_of(row)
        subject = self.subject(table.schema, table.name)
        body = self._envelope(table, op, place, key, before=before, after=after)
        stand_in = b""
        # A row that is too large for the bus is better missing than answered from as it was before.
        if key is not None and len(body) > _STAND_IN_BYTES:
            stand_in = to_bytes({**json.loads(self._envelope(table, "d", place, key, before=key, after=None)), "oversized": True})
        return Event(subject, message_id, body, stand_in)

    def _envelope(
        self, table: Table, op: str, place: Place, key: JsonRow | None, *, before: JsonRow | None, after: JsonRow | None
    ) -> bytes:
        previous = None if place.previous_commit_lsn is None else str(place.previous_commit_lsn)
        source = {
            "connector": "postgresql",
            "name": f"{CDC_PREFIX}.{self.source}",
            "ts_ms": place.committed_milliseconds,
            "snapshot": place.snapshot,
            "db": self.database,
            "sequence": json.dumps([previous, str(place.lsn)], separators=(",", ":")),
            "schema": table.schema,
            "table": table.name,
            "txId": place.transaction,
            "lsn": place.lsn,
            "commit_lsn": place.commit_lsn,
        }
        return to_bytes({"before": before, "after": after, "source": source, "op": op, "ts_ms": now_milliseconds(), "key": key})

    def snapshot_begins(self, snapshot_id: str, lsn: int, consistent_lsn: int, tables: list[str], reason: str) -> Event:
        """Return the event after which every row of `tables` follows, with op `r` and position `lsn`."""
        fields = {"snapshot_id": snapshot_id, "lsn": lsn, "commit_lsn": consistent_lsn, "tables": tables, "reason": reason}
        return self._control("snapshot", f"{snapshot_id}/begin", {"phase": "begin", **fields})

    def snapshot_ends(self, snapshot_id: str, lsn: int, consistent_lsn: int, rows: dict[str, int], standing: object) -> Event:
        """Return the event at which a row of `rows`' tables whose position is below `lsn` no longer exists.

        `standing` says what the tables were made of, for whoever goes on from here later.
        """
        fields: dict[str, object] = {"snapshot_id": snapshot_id, "lsn": lsn, "commit_lsn": consistent_lsn, "tables": list(rows)}
        fields |= {"rows": rows, "standing": standing}
        return self._control("snapshot", f"{snapshot_id}/end", {"phase": "end", **fields})

    def watermark(self, lsn: int) -> Event:
        """Return the event that says that every change committed up to `lsn` was published before it."""
        return self._control("watermark", f"{self.slot}/watermark/{lsn}", {"phase": "watermark", "lsn": lsn})

    def _control(self, name: str, message_id: str, fields: dict[str, object]) -> Event:
        source = {"connector": "postgresql", "name": f"{CDC_PREFIX}.{self.source}", "db": self.database, "schema": CONTROL_SCHEMA}
        body = {"op": "m", **fields, "source": {**source, "table": name, "lsn": fields["lsn"]}, "ts_ms": now_milliseconds()}
        return Event(self.subject(CONTROL_SCHEMA, name), message_id, to_bytes(body))


# No bus takes less than this; below it a stand-in is never needed.
_STAND_IN_BYTES = 256 * 1024
