"""The rows of a source as they are at one moment: hashes of buckets, computed by PostgreSQL, and the rows of chosen buckets."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from psycopg2 import sql

from chassis.errors import FailedPreconditionError, UnavailableError
from ingestor.fingerprints import BUCKET_DIGITS, BUCKETS, HASH_DIGITS, KEY_SEPARATOR, Fingerprint
from ingestor.postgres.catalog import Catalog, Shape
from ingestor.postgres.connections import in_thread
from ingestor.postgres.declaration import ReplicationDeclaration
from ingestor.postgres.envelopes import Table
from ingestor.postgres.slots import Slots
from ingestor.postgres.snapshot import Columns, Snapshot
from ingestor.postgres.values import Types

_BYTEA, _TIMESTAMP, _TIMESTAMPTZ = 17, 1114, 1184
# What the values of these types become on the bus; every other type is compared as PostgreSQL writes it.
_WRITTEN = {
    _BYTEA: "replace(encode({0}::bytea, 'base64'), chr(10), '')",
    _TIMESTAMP: "replace(concat({0}), ' ', 'T')",
    _TIMESTAMPTZ: "regexp_replace(replace(concat({0}), ' ', 'T'), '[+]00$', 'Z')",
}


class PostgresRows:
    """The published rows of one table in a snapshot of its own."""

    def __init__(self, snapshot: Snapshot, shape: Shape, columns: Columns, condition: str | None, types: Types, key: Sequence[str]) -> None:
        """Read `columns` of the rows that meet `condition`; `key` names the columns that choose a row's bucket."""
        self._snapshot, self._shape, self._columns, self._condition = snapshot, shape, columns, condition
        self._table = Table(shape.schema, shape.name, tuple((name, types.converter(oid)) for name, oid in columns), shape.key)
        written = {name: _written(name, _base(oid, types)) for name, oid in columns}
        if missing := [name for name in key if name not in written]:
            raise FailedPreconditionError(f"{shape.full_name!r} has no published column {missing[0]!r}", code="source_column_missing")
        keys = sql.SQL(", ").join([sql.Literal(KEY_SEPARATOR), *(written[name] for name in key)])
        self._bucket = sql.SQL("{} % {}").format(_number(sql.SQL("concat_ws({})").format(keys), BUCKET_DIGITS), sql.Literal(BUCKETS))
        parts = [_part(name, written[name]) for name in sorted(written)]
        self._hash = _number(sql.SQL(" || ").join(parts), HASH_DIGITS)

    @property
    def position(self) -> int:
        """A place below which every change is in these rows."""
        return self._snapshot.lsn

    @property
    def settled(self) -> int:
        """A place up to which everything was committed that is in these rows."""
        return self._snapshot.consistent_lsn

    async def buckets(self) -> Mapping[int, Fingerprint]:
        """Return number and sum of hashes of the rows of each bucket that has any; PostgreSQL reads the table once."""
        found = await in_thread(self._ask, interrupt=self._snapshot.interrupt)
        return {number: (count, int(total)) for number, count, total in found}

    def _ask(self) -> list[tuple[Any, ...]]:
        return self._snapshot.sums(self._shape, self._condition, self._bucket, self._hash)

    async def rows(self, buckets: Collection[int]) -> AsyncGenerator[Mapping[str, Any], None]:
        """Yield the rows of some buckets, values as the driver sends them; a bounded number is held at a time."""
        within = sql.SQL("{} in ({})").format(self._bucket, sql.SQL(", ").join(sql.Literal(number) for number in sorted(buckets)))
        pages = self._snapshot.pages(self._shape, self._columns, self._condition, within)
        while page := await in_thread(partial(next, pages, None), interrupt=self._snapshot.interrupt):
            for row in page:
                yield self._table.row(row)


class PostgresReader:
    """Opens snapshots of one declared source.

    A temporary slot names the place that fences a snapshot against the stream: below it nothing can be committed any more that
    the snapshot does not have. The slot is gone before the first row is read; the transaction stays until all are.
    """

    def __init__(
        self, declaration: ReplicationDeclaration, *, opened: Callable[[int], None] = lambda _lsn: None, open_seconds: float = 60.0
    ) -> None:
        """Bind the declaration; nothing connects until `open`, which tells `opened` up to where each snapshot says everything."""
        self._declaration, self._opened, self._open_seconds = declaration, opened, open_seconds

    @asynccontextmanager
    async def open(self, table: str, key: Sequence[str]) -> AsyncIterator[PostgresRows]:
        """Open `schema.table`; raise a ServiceError where it cannot be read, or where a transaction does not end in time."""
        catalog = Catalog(self._declaration)
        slots = Slots(self._declaration, catalog)
        snapshot, types = Snapshot(self._declaration, slots), Types()

        def look() -> tuple[Shape, Columns, str | None]:
            shape = next(shape for shape in catalog.check() if shape.full_name == table)
            types.replace(catalog.types())
            return shape, *slots.filters(shape)

        try:
            shape, columns, condition = await in_thread(look, interrupt=catalog.interrupt)
            await self._open(snapshot)
            await in_thread(snapshot.release, interrupt=snapshot.interrupt)
            # The source's own slot then has something behind the snapshot to tell of, also where its tables rest.
            await in_thread(slots.heartbeat, interrupt=catalog.interrupt)
            self._opened(snapshot.consistent_lsn)
            yield PostgresRows(snapshot, shape, columns, condition, types, key)
        finally:
            snapshot.close()
            catalog.close()

    async def _open(self, snapshot: Snapshot) -> None:
        try:
            async with asyncio.timeout(self._open_seconds):
                await in_thread(snapshot.open, interrupt=snapshot.interrupt)
        except TimeoutError as error:
            message = f"source {self._declaration.name!r}: no snapshot within {self._open_seconds} s; a transaction that is open blocks it"
            raise UnavailableError(message, code="source_unavailable") from error


def _base(oid: int, types: Types) -> int:
    row = types.rows.get(oid)
    return _base(row.base, types) if row is not None and row.base else oid


def _written(name: str, oid: int) -> sql.Composable:
    return sql.SQL(_WRITTEN.get(oid, "concat({0})")).format(sql.Identifier(name))


def _part(name: str, written: sql.Composable) -> sql.Composable:
    return sql.SQL("case when {0} is null then '-' else length({1}) || ':' || {1} end").format(sql.Identifier(name), written)


def _number(text: sql.Composable, digits: int) -> sql.Composable:
    """Return the first hexadecimal digits of the hash of a text as a number."""
    hashed = sql.SQL("encode(sha256(convert_to({}, 'UTF8')), 'hex')").format(text)
    return sql.SQL("('x' || substr({}, 1, {}))::bit({})::bigint").format(hashed, sql.Literal(digits), sql.Literal(digits * 4))
