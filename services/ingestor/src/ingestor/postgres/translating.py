"""Messages of the slot as events of the bus, numbered within their transaction."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from chassis.logging import get_logger
from ingestor.postgres.catalog import Catalog
from ingestor.postgres.envelopes import EnvelopeWriter, Event, JsonRow, Place, Table
from ingestor.postgres.pgoutput import UNCHANGED, Begin, Delete, Insert, Message, ProtocolError, Relation, Row, Truncate, Update
from ingestor.postgres.signals import ColumnMissing
from ingestor.postgres.values import Types

log = get_logger("ingestor.postgres")


@dataclass
class _Known:
    """A relation of the stream and how its rows are read; `table` is None for one that nobody declared."""

    relation: Relation
    table: Table | None


@dataclass
class Translator:
    """Holds what a stream said about its tables, and the transaction that it is in."""

    writer: EnvelopeWriter
    catalog: Catalog
    types: Types
    declared: Mapping[str, tuple[str, ...]]
    keys: Mapping[str, frozenset[str]]
    on_missing: Callable[[ColumnMissing], None]
    _relations: dict[int, _Known] = field(default_factory=dict)
    _begin: Begin | None = None
    _number: int = 0
    _previous_commit: int | None = None

    @property
    def in_transaction(self) -> bool:
        """Whether the last Begin has no Commit yet."""
        return self._begin is not None

    def begin(self, message: Begin) -> None:
        """Enter a transaction."""
        self._begin, self._number = message, 0

    def commit(self) -> None:
        """Leave the transaction."""
        self._previous_commit = self._begin.commit_lsn if self._begin else None
        self._begin = None

    async def events(self, lsn: int, message: Message) -> list[Event]:
        """Return the events of one message."""
        if isinstance(message, Relation):
            await self._learn(message)
            return []
        # Rows of other tables count too: a number must not depend on what is declared today, or a repeat would not be known as one.
        self._number += 1
        if isinstance(message, Truncate):
            emptied = [self._known(oid).table for oid in message.relations]
            return [self._event(table, "t", lsn, part=part) for part, table in enumerate(emptied) if table is not None]
        if not isinstance(message, Insert | Update | Delete):
            raise ProtocolError(f"{type(message).__name__} is no change")
        known = self._known(message.relation)
        return [] if known.table is None else await self._change(known.relation, known.table, lsn, message)

    async def _change(self, relation: Relation, table: Table, lsn: int, message: Insert | Update | Delete) -> list[Event]:
        if isinstance(message, Insert):
            return [self._event(table, "c", lsn, after=table.row(message.new))]
        if isinstance(message, Delete):
            return [self._event(table, "d", lsn, before=self._before(table, message.old, whole=message.old_is_whole))]
        return await self._update(relation, table, lsn, message)

    def _before(self, table: Table, old: Row, *, whole: bool) -> JsonRow:
        row = table.row(old)
        # The other columns were not sent; nothing is better than values that nobody wrote.
        return row if whole else table.key_of(row)

    async def _update(self, relation: Relation, table: Table, lsn: int, message: Update) -> list[Event]:
        new, old = message.new, message.old
        if old is not None and message.old_is_whole:
            new = tuple(before if value is UNCHANGED else value for value, before in zip(new, old, strict=True))
        before = None if old is None else self._before(table, old, whole=message.old_is_whole)
        after = table.row(new)
        if before is None or table.key_of(before) == table.key_of(after):
            return [self._event(table, "u", lsn, before=before, after=after)]
        if UNCHANGED in new:
            after = table.row(await self._completed(relation, table, new))
        return [self._event(table, "d", lsn, before=before), self._event(table, "c", lsn, after=after, part=1)]

    async def _completed(self, relation: Relation, table: Table, new: Row) -> Row:
        """Return a row under a new key with what was not sent, as it is now.

        Nothing is stored under the new key yet that could fill it in. If the row changed again or is gone, a later event says so.
        """
        columns = {column.name: column.type_oid for column in relation.columns}
        key = {name: value for name, value in zip(columns, new, strict=True) if name in table.key and isinstance(value, str)}
        current = await asyncio.to_thread(self.catalog.current_row, table.schema, table.name, columns, key)
        if current is None:
            return new
        return tuple(now if value is UNCHANGED else value for value, now in zip(new, current, strict=True))

    def _event(
        self, table: Table, op: str, lsn: int, *, before: JsonRow | None = None, after: JsonRow | None = None, part: int = 0
    ) -> Event:
        begin = self._begin
        if begin is None:
            raise ProtocolError("a change came outside a transaction")
        milliseconds = begin.committed_microseconds // 1000
        place = Place(lsn, begin.commit_lsn, milliseconds, begin.transaction, previous_commit_lsn=self._previous_commit)
        message_id = f"{self.writer.slot}/{begin.commit_lsn}/{self._number}" + (f".{part}" if part else "")
        return self.writer.change(table, op, place, message_id, before=before, after=after)

    def _known(self, oid: int) -> _Known:
        if oid not in self._relations:
            raise ProtocolError(f"a change of relation {oid} came before its shape")
        return self._relations[oid]

    async def _learn(self, relation: Relation) -> None:
        full_name = f"{relation.schema}.{relation.table}"
        if full_name not in self.declared:
            self._relations[relation.oid] = _Known(relation, None)
            return
        names = [column.name for column in relation.columns]
        for missing in [name for name in self.declared[full_name] if name not in names]:
            log.error("source_column_missing", source=self.writer.source, table=full_name, column=missing)
            self.on_missing(ColumnMissing(self.writer.source, full_name, missing))
        if self.types.missing(column.type_oid for column in relation.columns):
            self.types.replace(await asyncio.to_thread(self.catalog.types))
        columns = tuple((column.name, self.types.converter(column.type_oid)) for column in relation.columns)
        # With the whole row as identity every column is flagged, and only the catalogue knows the key.
        flagged = frozenset(column.name for column in relation.columns if column.is_key)
        key = self.keys[full_name] if relation.replica_identity == "f" else flagged
        self._relations[relation.oid] = _Known(relation, Table(relation.schema, relation.table, columns, key & frozenset(names)))
