"""Every row of the declared tables as of the position at which a new slot starts."""

import secrets
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psycopg2
from psycopg2 import sql

from ingestor.postgres.catalog import Shape, raw_text
from ingestor.postgres.connections import Connection, connect, translated
from ingestor.postgres.declaration import ReplicationDeclaration
from ingestor.postgres.pgoutput import Row
from ingestor.postgres.slots import Slots

Columns = tuple[tuple[str, int], ...]


def to_lsn(text: str) -> int:
    """Return a position such as `0/1500800` as a number."""
    high, low = text.split("/")
    return (int(high, 16) << 32) + int(low, 16)


class Snapshot:
    """A temporary slot and what the database held where that slot starts; every call blocks.

    The slot becomes the source's own only by `keep`, when all rows are published: a process that ends before leaves nothing behind,
    and a slot that exists says that its snapshot was complete.

    A transaction may begin while the slot is being made, change a row below the consistent point and commit above it. It is
    streamed, so the rows must stand below it: their position is the one at which the slot reserved the log, below everything
    that it will ever stream, and above everything that a former slot streamed.
    """

    def __init__(self, declaration: ReplicationDeclaration, slots: Slots) -> None:
        """Bind the declaration; nothing connects until `open`."""
        self._declaration, self._slots = declaration, slots
        self._name = f"{declaration.slot_name}_{secrets.token_hex(4)}"
        self._maker: Connection | None = None
        self._reader: Connection | None = None
        self.lsn = 0
        self.consistent_lsn = 0

    def open(self) -> None:
        """Make the temporary slot, which waits for every transaction that runs now, and a transaction that sees what it starts from."""
        declaration = self._declaration
        try:
            self._maker = connect(declaration, replication=True)
            with self._maker.cursor() as cursor:
                cursor.execute(f'CREATE_REPLICATION_SLOT "{self._name}" TEMPORARY LOGICAL pgoutput EXPORT_SNAPSHOT')
                made = cursor.fetchone()
            assert made is not None  # noqa: S101 - the command returns one row
            self._reader = connect(declaration, statement_seconds=0)
            self._reader.set_session(isolation_level="REPEATABLE READ", readonly=True, autocommit=False)
            with self._reader.cursor() as cursor:
                cursor.execute("set transaction snapshot %s", (made[2],))
                cursor.execute("select (restart_lsn - '0/0')::bigint from pg_replication_slots where slot_name = %s", (self._name,))
                [[self.lsn]] = cursor.fetchall()
            self.consistent_lsn = to_lsn(made[1])
        except psycopg2.Error as error:
            raise translated(error, declaration, "cannot take a snapshot") from error

    def release(self) -> None:
        """Give the temporary slot back; the transaction goes on seeing what it sees."""
        if self._maker is not None:
            self._maker.close()

    def sums(self, shape: Shape, condition: str | None, group: sql.Composable, value: sql.Composable) -> list[tuple[Any, ...]]:
        """Return each group of rows with their number and the sum of a value."""
        query = sql.SQL("select {}, count(*), sum({})").format(group, value) + _source(shape, condition) + sql.SQL(" group by 1")
        assert self._reader is not None  # noqa: S101 - sums are asked for between open and close
        try:
            with self._reader.cursor() as cursor:
                cursor.execute(query)
                return cursor.fetchall()
        except psycopg2.Error as error:
            raise translated(error, self._declaration, f"cannot read {shape.full_name}") from error

    def pages(self, shape: Shape, columns: Columns, condition: str | None, within: sql.Composable | None = None) -> Iterator[list[Row]]:
        """Yield the rows of a table, or those `within` a condition, as PostgreSQL's text, a bounded number at a time."""
        query = sql.SQL("select {}").format(sql.SQL(", ").join(sql.Identifier(name) for name, _oid in columns))
        query += _source(shape, condition, within)
        assert self._reader is not None  # noqa: S101 - pages are read between open and close
        limit = self._declaration.snapshot_page_rows
        try:
            with self._reader.cursor("strata") as cursor:
                raw_text(cursor, {oid for _name, oid in columns})
                cursor.execute(query)
                size = min(limit, 100)
                while page := cursor.fetchmany(size):
                    yield page
                    held = sum(len(value) for row in page for value in row if value is not None)
                    size = max(1, min(limit, size * 2, size * self._declaration.snapshot_page_bytes // max(held, 1)))
        except psycopg2.Error as error:
            raise translated(error, self._declaration, f"cannot read {shape.full_name}") from error

    def keep(self) -> None:
        """Make the slot permanent under the source's name."""
        self._slots.keep(self._name)

    def interrupt(self) -> None:
        """End what another thread asked."""
        for connection in (self._maker, self._reader):
            if connection is not None and not connection.closed:
                with suppress(psycopg2.Error):
                    connection.cancel()

    def close(self) -> None:
        """Leave; the temporary slot goes with its connection."""
        for connection in (self._reader, self._maker):
            if connection is not None:
                with suppress(psycopg2.Error):
                    connection.close()


def _source(shape: Shape, condition: str | None, within: sql.Composable | None = None) -> sql.Composed:
    only = sql.SQL("only ") if shape.kind == "r" else sql.SQL("")
    conditions: list[sql.Composable] = [sql.SQL("({})").format(sql.SQL(condition))] if condition else []
    conditions += [within] if within is not None else []
    where = sql.SQL(" where {}").format(sql.SQL(" and ").join(conditions)) if conditions else sql.SQL("")
    return sql.SQL(" from {}{}{}").format(only, sql.Identifier(shape.schema, shape.name), where)
