"""What a source's catalogue says: whether it can be read, and the shape of its tables."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg2
import psycopg2.extensions
from psycopg2 import errorcodes, sql

from chassis.errors import FailedPreconditionError
from ingestor.postgres.connections import Connection, connect, translated
from ingestor.postgres.declaration import ReplicationDeclaration
from ingestor.postgres.pgoutput import Row
from ingestor.postgres.values import TypeRow

_OLDEST = 120_000
_OTHER_SHAPE = {
    errorcodes.UNDEFINED_TABLE,
    errorcodes.UNDEFINED_COLUMN,
    errorcodes.UNDEFINED_FUNCTION,
    errorcodes.INVALID_SCHEMA_NAME,
    errorcodes.INVALID_TEXT_REPRESENTATION,
    errorcodes.DATETIME_FIELD_OVERFLOW,
    errorcodes.INVALID_DATETIME_FORMAT,
    errorcodes.NUMERIC_VALUE_OUT_OF_RANGE,
}
_FACTS = """
select current_setting('server_version_num')::int, current_setting('wal_level'), pg_is_in_recovery(), current_database(), current_user,
       exists (select from pg_roles where rolname = current_user and (rolsuper or rolreplication))
       or exists (select from pg_roles where rolname like '%%replication' and pg_has_role(oid, 'member'))
"""
_TABLE = """
select c.oid, c.relkind::text, c.relreplident::text, has_table_privilege(c.oid, 'SELECT') and has_schema_privilege(n.oid, 'USAGE')
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname = %s and c.relname = %s and c.relkind in ('r', 'p')
"""
# A key that is checked late can repeat inside a transaction, which is why PostgreSQL takes none as identity.
_COLUMNS = """
select a.attname, a.atttypid::bigint, a.attgenerated <> '', exists (
  select from pg_index i where i.indrelid = a.attrelid and a.attnum = any(i.indkey::int2[])
  and case c.relreplident when 'i' then i.indisreplident else i.indisprimary and i.indimmediate end)
from pg_attribute a join pg_class c on c.oid = a.attrelid
where a.attrelid = %s and a.attnum > 0 and not a.attisdropped order by a.attnum
"""
# Neither a part of the rows nor an expression tells all rows apart, and a key that is checked late repeats for a while.
_UNIQUE = """
select 1 from pg_index i where i.indrelid = %s and i.indisunique and i.indisvalid and i.indimmediate
and i.indpred is null and i.indexprs is null and (
  select array_agg(a.attname::text) from pg_attribute a
  where a.attrelid = i.indrelid and a.attnum = any((i.indkey::int2[])[0:i.indnkeyatts - 1])) <@ %s::text[]
"""
_TYPES = """
select oid::bigint, typcategory::text, case when typlen = -1 then typelem else 0 end::bigint, typbasetype::bigint, typdelim::text
from pg_type
"""


@dataclass(frozen=True)
class Shape:
    """A table as the catalogue has it: name and type of each column, and the key."""

    schema: str
    name: str
    kind: str
    columns: tuple[tuple[str, int], ...]
    key: frozenset[str]

    @property
    def full_name(self) -> str:
        """Schema and name, as in the declaration."""
        return f"{self.schema}.{self.name}"


class Catalog:
    """A source's catalogue, read over one ordinary connection that blocks its caller."""

    def __init__(self, declaration: ReplicationDeclaration) -> None:
        """Bind the declaration; nothing connects until something is asked."""
        self._declaration = declaration
        self._connection: Connection | None = None
        self.database = ""

    @property
    def connection(self) -> Connection:
        """The connection, opened where there is none; raise a ServiceError where none can be."""
        if self._connection is None or self._connection.closed:
            self._connection = connect(self._declaration)
        return self._connection

    def close(self) -> None:
        """Leave."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def interrupt(self) -> None:
        """End what another thread asked."""
        if self._connection is not None and not self._connection.closed:
            with suppress(psycopg2.Error):
                self._connection.cancel()

    def ask(self, query: str | sql.Composable, *values: Any, what: str = "a question failed") -> list[tuple[Any, ...]]:
        """Run a statement and return its rows; raise a ServiceError."""
        connection = self.connection
        try:
            with connection.cursor() as cursor:
                cursor.execute(query, values)
                return cursor.fetchall() if cursor.description else []
        except psycopg2.Error as error:
            raise translated(error, self._declaration, what) from error

    def check(self) -> list[Shape]:
        """Return the declared tables; raise FailedPreconditionError for what somebody must change first."""
        [(version, wal_level, recovering, database, role, may_replicate)] = self.ask(_FACTS)
        self.database = database
        if version < _OLDEST:
            raise self._refusal("source_too_old", f"PostgreSQL {version // 10_000} is too old; 12 is the oldest that can be read")
        if recovering:
            raise self._refusal("source_is_standby", "this server is a standby; name the primary in the DSN")
        if wal_level != "logical":
            remedy = "set wal_level = logical in postgresql.conf and restart PostgreSQL"
            raise self._refusal("wal_level_not_logical", f"wal_level is {wal_level!r}; {remedy}")
        if not may_replicate:
            raise self._refusal("replication_permission_missing", f"role {role!r} may not replicate; ALTER ROLE {role} REPLICATION")
        return [self._shape(name, needed, role) for name, needed in self._declaration.tables.items()]

    def _shape(self, full_name: str, needed: tuple[str, ...], role: str) -> Shape:
        schema, _, name = full_name.partition(".")
        found = self.ask(_TABLE, schema, name)
        if not found:
            known = [f"{s}.{t}" for s, t in self.ask("select schemaname, tablename from pg_tables where schemaname = %s limit 20", schema)]
            raise self._refusal("source_table_missing", f"there is no table {full_name!r}; schema {schema!r} has {known}")
        [(oid, kind, identity, readable)] = found
        if not readable:
            remedy = f"GRANT USAGE ON SCHEMA {schema} TO {role}; GRANT SELECT ON {full_name} TO {role}"
            raise self._refusal("source_permission_missing", f"role {role!r} may not read {full_name!r}; {remedy}")
        columns = self.ask(_COLUMNS, oid)
        names = [column for column, _type, _generated, _key in columns]
        if missing := [column for column in needed if column not in names]:
            raise self._refusal("source_column_missing", f"{full_name!r} has no column {missing[0]!r}; it has {names}")
        if computed := [column for column, _type, generated, _key in columns if generated and column in needed]:
            remedy = "PostgreSQL does not replicate it; map the columns that it is made of"
            raise self._refusal("source_column_generated", f"column {computed[0]!r} of {full_name!r} is GENERATED; {remedy}")
        key = frozenset(column for column, _type, _generated, is_key in columns if is_key)
        if not key or identity == "n":
            remedy = f"ALTER TABLE {full_name} ADD PRIMARY KEY (...), or REPLICA IDENTITY USING INDEX ..."
            raise self._refusal("source_table_without_key", f"{full_name!r} has nothing that identifies its rows; {remedy}")
        told_apart = frozenset(self._declaration.keys.get(full_name, ()))
        if identity == "f":
            # Every value of the old row is sent, so that a row may be told apart by whatever is declared.
            key |= told_apart
        if outside := sorted(told_apart - key):
            remedy = f"map its rows by {sorted(key)}, or ALTER TABLE {full_name} REPLICA IDENTITY FULL or USING INDEX ..."
            message = f"{full_name!r} is mapped by {outside[0]!r}, which is not in its replica identity, so that no deletion names it"
            raise self._refusal("source_key_not_identity", f"{message}; {remedy}")
        if told_apart and not self.ask(_UNIQUE, oid, sorted(told_apart)):
            remedy = f"map its rows by all of their primary key, or CREATE UNIQUE INDEX ON {full_name} ({', '.join(sorted(told_apart))})"
            message = f"{full_name!r} is mapped by {sorted(told_apart)}, which no unique index covers, so that rows may share a document"
            raise self._refusal("source_key_not_unique", f"{message}; {remedy}")
        # A generated column is not replicated, so a snapshot must not have it either.
        return Shape(schema, name, kind, tuple((column, oid) for column, oid, generated, _key in columns if not generated), key)

    def _refusal(self, code: str, message: str) -> FailedPreconditionError:
        return FailedPreconditionError(f"source {self._declaration.name!r}: {message}", code=code)

    def types(self) -> list[TypeRow]:
        """Return what the database knows about its types."""
        return [TypeRow(*row) for row in self.ask(_TYPES)]

    def current_row(self, schema: str, name: str, columns: dict[str, int], key: dict[str, str]) -> Row | None:
        """Return the row that has a key now, as PostgreSQL's text, or None; `columns` are names with types."""
        query = sql.SQL("select {} from {} where {}").format(
            sql.SQL(", ").join(sql.Identifier(column) for column in columns),
            sql.Identifier(schema, name),
            sql.SQL(" and ").join(sql.SQL("{} = %s").format(sql.Identifier(column)) for column in key),
        )
        connection = self.connection
        try:
            with connection.cursor() as cursor:
                raw_text(cursor, set(columns.values()))
                # The server finds the type of a quoted constant itself.
                cursor.execute(query, list(key.values()))
                found = cursor.fetchone()
        except psycopg2.Error as error:
            if error.pgcode in _OTHER_SHAPE:
                # The table has changed since; whoever needs the value asks for all rows.
                return None
            raise translated(error, self._declaration, f"cannot read a row of {schema}.{name}") from error
        return None if found is None else tuple(found)


def _as_it_came(value: str | bytes | None, _cursor: object) -> str | bytes | None:
    return value


def raw_text(cursor: psycopg2.extensions.cursor, types: set[int]) -> None:
    """Let a cursor return each value of these types as the text that PostgreSQL sent."""
    psycopg2.extensions.register_type(psycopg2.extensions.new_type(tuple(types), "TEXT", _as_it_came), cursor)
