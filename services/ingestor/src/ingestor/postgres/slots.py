"""The slot and the publication of a source: made, looked at, moved on and given up."""

import time
from contextlib import suppress
from dataclasses import dataclass

import psycopg2
from psycopg2 import errorcodes, sql

from chassis.errors import FailedPreconditionError, ServiceError, UnavailableError
from ingestor.postgres.catalog import Catalog, Shape
from ingestor.postgres.connections import translated
from ingestor.postgres.declaration import ReplicationDeclaration

_SLOT = """
select slot_name, plugin, database, active, wal_status, (restart_lsn - '0/0')::bigint, (confirmed_flush_lsn - '0/0')::bigint,
       (pg_current_wal_lsn() - confirmed_flush_lsn)::bigint, (pg_current_wal_lsn() - restart_lsn)::bigint
from pg_replication_slots where slot_name = %s
"""
_PUBLISHED = "select schemaname || '.' || tablename from pg_publication_tables where pubname = %s"
_FILTERS = "select attnames::text[], rowfilter from pg_publication_tables where pubname = %s and schemaname = %s and tablename = %s"
_OPTIONS = """
select pubinsert and pubupdate and pubdelete and pubtruncate, pubviaroot, exists (
  select from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname || '.' || c.relname = any(%s) and c.relkind = 'p')
from pg_publication where pubname = %s
"""
_BY_ROOT = "publish_via_partition_root = true"
_WHOLE = f"publish = 'insert, update, delete, truncate', {_BY_ROOT}"
_DROP_SECONDS = 10.0


@dataclass(frozen=True)
class Slot:
    """A slot as the server has it; positions and differences in bytes."""

    active: bool
    lost: bool
    restart_lsn: int
    confirmed_lsn: int
    lag_bytes: int
    retained_bytes: int


class Slots:
    """The slot and the publication of one source; every call blocks."""

    def __init__(self, declaration: ReplicationDeclaration, catalog: Catalog) -> None:
        """Work over the connection of `catalog`."""
        self._declaration, self._catalog = declaration, catalog
        self._slot, self._publication = declaration.slot_name, declaration.publication_name

    def state(self) -> Slot | None:
        """Return the slot, or None where there is none; raise FailedPreconditionError for one that is not ours."""
        rows = self._catalog.ask(_SLOT, self._slot, what="cannot read the replication slots")
        if not rows:
            return None
        [(_name, plugin, database, active, wal_status, restart, confirmed, lag, retained)] = rows
        if plugin != "pgoutput" or database != self._catalog.database:
            message = f"slot {self._slot!r} belongs to plug-in {plugin!r} in database {database!r}; declare another slot"
            raise FailedPreconditionError(f"source {self._declaration.name!r}: {message}", code="replication_slot_foreign")
        lost = wal_status == "lost" or restart is None or confirmed is None
        return Slot(active, lost, restart or 0, confirmed or 0, lag or 0, retained or 0)

    def drop(self) -> None:
        """Remove the slot, and whoever still reads it; raise UnavailableError when that takes too long."""
        deadline = time.monotonic() + _DROP_SECONDS
        while (slot := self.state()) is not None:
            if slot.active:
                query = "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = %s and active_pid is not null"
                self._catalog.ask(query, self._slot, what="cannot end the reader of the slot")
            try:
                self._catalog.ask("select pg_drop_replication_slot(%s)", self._slot, what="cannot drop the slot")
            except ServiceError as error:
                cause = error.__cause__
                gone = isinstance(cause, psycopg2.Error) and cause.pgcode == errorcodes.UNDEFINED_OBJECT
                if gone:
                    return
                if error.code != "replication_slot_in_use" or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def keep(self, temporary: str) -> None:
        """Make the slot out of a temporary one, at the same position."""
        self._catalog.ask("select pg_copy_logical_replication_slot(%s, %s, false)", temporary, self._slot, what="cannot create the slot")

    def heartbeat(self) -> None:
        """Write a record of our own into the log, so that the slot can move on while its tables rest."""
        self._catalog.ask("select pg_logical_emit_message(false, 'strata', %s)", self._declaration.name, what="cannot write a heartbeat")

    def unpublished(self) -> list[str]:
        """Return the declared tables whose changes do not reach the slot yet, or not all of them."""
        if self._partial():
            return sorted(self._declaration.tables)
        published = {name for (name,) in self._catalog.ask(_PUBLISHED, self._publication)}
        return sorted(set(self._declaration.tables) - published)

    def _partial(self) -> bool:
        """Return whether the publication sends only some operations, or changes of partitions under other names."""
        found = self._catalog.ask(_OPTIONS, list(self._declaration.tables), self._publication)
        return any(not everything or (partitioned and not by_root) for everything, by_root, partitioned in found)

    def publish(self, shapes: list[Shape]) -> None:
        """Make the publication what is declared, where it is ours; raise FailedPreconditionError where it is not and too small."""
        known = self._catalog.ask(
            "select puballtables, pg_has_role(pubowner, 'member') from pg_publication where pubname = %s", self._publication
        )
        tables = sql.SQL(", ").join(sql.Identifier(shape.schema, shape.name) for shape in shapes)
        name = sql.Identifier(self._publication)
        if not known:
            self._change(sql.SQL("create publication {} for table {} with ({})").format(name, tables, sql.SQL(_BY_ROOT)))
            return
        [(everything, ours)] = known
        if self._partial():
            self._whole(ours=ours)
        published = {row[0] for row in self._catalog.ask(_PUBLISHED, self._publication)}
        if not everything and published != set(self._declaration.tables):
            self._set_tables(sql.SQL("alter publication {} set table {}").format(name, tables), ours=ours)
        self._check_columns(shapes)

    def _whole(self, *, ours: bool) -> None:
        statement = sql.SQL("alter publication {} set ({})").format(sql.Identifier(self._publication), sql.SQL(_WHOLE))
        if ours:
            with suppress(FailedPreconditionError):
                self._change(statement)
                return
        remedy = f"as its owner run ALTER PUBLICATION {self._publication} SET ({_WHOLE})"
        message = f"publication {self._publication!r} does not send every change, or those of partitions not as their table's"
        raise self._refusal("publication_incomplete", f"{message}; {remedy}")

    def _set_tables(self, statement: sql.Composed, *, ours: bool) -> None:
        # A table that stays in the publication after it left the declaration would come back later with a gap.
        if ours:
            with suppress(FailedPreconditionError):
                self._change(statement)
                return
        if missing := self.unpublished():
            remedy = f"as its owner run ALTER PUBLICATION {self._publication} ADD TABLE {', '.join(missing)}"
            raise self._refusal("publication_incomplete", f"publication {self._publication!r} lacks {missing}; {remedy}")

    def _check_columns(self, shapes: list[Shape]) -> None:
        for shape in shapes:
            names = {column for column, _type in self.filters(shape)[0]}
            if missing := [column for column in self._declaration.tables[shape.full_name] if column not in names]:
                message = f"publication {self._publication!r} leaves column {missing[0]!r} of {shape.full_name!r} out"
                remedy = (
                    f"as its owner run ALTER PUBLICATION {self._publication} SET TABLE ... with that column, or without a list of columns"
                )
                raise self._refusal("publication_incomplete", f"{message}; {remedy}")

    def _change(self, statement: sql.Composed) -> None:
        connection = self._catalog.connection
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
        except psycopg2.Error as error:
            if error.pgcode != errorcodes.INSUFFICIENT_PRIVILEGE:
                raise translated(error, self._declaration, "cannot change the publication") from error
            tables = ", ".join(self._declaration.tables)
            remedy = f"as owner of the tables run CREATE PUBLICATION {self._publication} FOR TABLE {tables} WITH ({_BY_ROOT})"
            text = " ".join(str(error).split())
            raise self._refusal("publication_permission_missing", f"{text}; {remedy}") from error

    def _refusal(self, code: str, message: str) -> FailedPreconditionError:
        return FailedPreconditionError(f"source {self._declaration.name!r}: {message}", code=code)

    def filters(self, shape: Shape) -> tuple[tuple[tuple[str, int], ...], str | None]:
        """Return the columns of a table that are published, and the condition of its rows or None."""
        if self._catalog.connection.server_version < 150_000:
            return shape.columns, None
        rows = self._catalog.ask(_FILTERS, self._publication, shape.schema, shape.name)
        if not rows:
            raise UnavailableError(
                f"source {self._declaration.name!r}: {shape.full_name!r} left the publication", code="source_unavailable"
            )
        [(names, condition)] = rows
        return tuple(column for column in shape.columns if column[0] in names), condition
