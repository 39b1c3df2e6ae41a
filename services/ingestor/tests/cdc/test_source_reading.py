"""A real PostgreSQL is held against the ledger: only what differs is read, and what still moves is no drift."""

import asyncio
import json
import sqlite3
import threading
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psycopg2
import pytest

from chassis.errors import UnavailableError
from chassis.messaging import connect
from chassis.tasks import end
from ingestor.cdc.feed import Feed
from ingestor.cdc.mapping import Table
from ingestor.fingerprints import Fingerprint
from ingestor.postgres import PostgresReader, ReplicationDeclaration, ReplicationSource
from ingestor.postgres.reading import PostgresRows
from ingestor.settings import Settings
from knowledge.schema import Kind
from testkit.postgres import PostgresServer

from .conftest import Rig, Tables, texts

_ROWS = 120
_TABLE = """
create table products (
    id int, region text, name text not null, body text, price numeric(10,2), weight float8, few real, sold boolean, tags text[],
    meta jsonb, raw bytea, code char(6), made date, at timestamp, seen timestamptz, primary key (region, id));
insert into products
select g, 'r' || g % 3, 'Lamp ' || g, 'A lamp number ' || g || ' for a desk.', g * 1.5, g / 8.0, g / 10.0, g % 2 = 0,
    array['a b', null, 'c"' || g], jsonb_build_object('x', g, 'long', 'ü'), decode('00ff', 'hex'), 'c' || g, date '2026-01-01' + g,
    timestamp '2026-01-01 10:00:00.5' + g * interval '1 s', timestamptz '2026-01-01 10:00:00+02' + g * interval '1 s'
from generate_series(1, 120) g;
insert into products (id, region, name) values (1000, 'ö', 'Nothing else is known of it');
"""
_MAPPING = {
    "key": ["region", "id"],
    "collection": "products",
    "columns": {"meta": "json"},
    "document": {"id": "{{ region }}-{{ id }}", "title": "{{ name }}", "text": "{{ name }}: {{ body }}"},
}


@dataclass
class _Watched:
    """The reader, which also says what was read of the source."""

    reader: PostgresReader
    read: list[Mapping[str, Any]]

    @asynccontextmanager
    async def open(self, table: str, key: Sequence[str]) -> AsyncIterator["_WatchedRows"]:
        """Open the table."""
        async with self.reader.open(table, key) as rows:
            yield _WatchedRows(rows, self.read)


@dataclass
class _WatchedRows:
    opened: PostgresRows
    read: list[Mapping[str, Any]]

    @property
    def position(self) -> int:
        """The place of the rows."""
        return self.opened.position

    @property
    def settled(self) -> int:
        """The place up to which they say everything."""
        return self.opened.settled

    async def buckets(self) -> Mapping[int, Fingerprint]:
        """Return what PostgreSQL computes."""
        return await self.opened.buckets()

    async def rows(self, buckets: Collection[int]) -> AsyncGenerator[Mapping[str, Any], None]:
        """Yield rows, and note them."""
        async for row in self.opened.rows(buckets):
            self.read.append(row)
            yield row


@dataclass
class _Shop:
    """A database with a declared source."""

    dsn: str
    declaration: ReplicationDeclaration

    def run(self, statements: str) -> None:
        """Run statements in one transaction."""
        connection = psycopg2.connect(self.dsn)
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(statements)
        finally:
            connection.close()


@pytest.fixture
def shop(postgres: PostgresServer) -> Iterator[_Shop]:
    """Return a database with a table of many types; its slot goes at the end."""
    name = f"r{uuid.uuid4().hex[:12]}"
    dsn = postgres.create_database(name)
    made = _Shop(dsn, ReplicationDeclaration(
        name="shop", dsn=dsn, slot=name, tables={"public.products": ()}, heartbeat_seconds=0.1, watermark_seconds=0.05,
        status_seconds=0.1, monitor_seconds=0.1,
    ))  # fmt: skip
    made.run(_TABLE)
    yield made
    # The server has few slots, and a reader that has left holds its own for a moment.
    for _ in range(1200):
        with suppress(psycopg2.Error):
            made.run(f"select pg_drop_replication_slot('{name}')")
            break
        time.sleep(0.1)


@asynccontextmanager
async def _running(rig: Rig, shop: _Shop, tables: tuple[Table, ...], reader: _Watched) -> AsyncIterator[Feed]:
    source = ReplicationSource(shop.declaration, _connect)
    task = asyncio.create_task(source.run())
    try:
        async with rig.feed(tables, readers={"shop": reader}) as feed:
            async with asyncio.timeout(180):
                while source.status().state != "streaming":  # noqa: ASYNC110 - another task's state
                    await asyncio.sleep(0.02)
            await feed.settled(300)
            yield feed
    finally:
        await end(task)


async def _connect() -> Any:
    return (await connect(Settings(), "ingestor", reconnect=False)).client


def _altered(rig: Rig) -> None:
    """Change one row of the ledger, drop another, and add one that the source never had."""
    store = sqlite3.connect(rig.ledger, timeout=180)
    with store:
        [(content,)] = store.execute("SELECT content FROM cdc_rows WHERE key = '[\"r1\",4]'").fetchall()
        wrong = json.dumps({**json.loads(content), "body": "altered by hand"})
        store.execute("UPDATE cdc_rows SET content = ? WHERE key = '[\"r1\",4]'", (wrong,))
        store.execute("DELETE FROM cdc_rows WHERE key = '[\"r2\",5]'")
        columns = "lsn, position, 0, content, since, 'products/r0-7777', collection, hash, chunks, expires_ms, committed_ms, changed_ms"
        statement = f"SELECT source, tbl, '[\"r0\",7777]', {columns} FROM cdc_rows WHERE key = '[\"r1\",1]'"  # noqa: S608 - ours
        store.execute(f"INSERT INTO cdc_rows {statement}")
    store.close()


async def test_what_got_lost_between_source_and_ledger_is_found_by_buckets(rig: Rig, tables: Tables, shop: _Shop) -> None:
    """Changes that were never sent and a ledger altered by hand are mended; rows of other buckets are not read, nor embedded."""
    declared = tables({"shop": {"public.products": _MAPPING}})
    reader = _Watched(PostgresReader(shop.declaration), [])
    async with _running(rig, shop, declared, reader) as feed:
        whole = await feed.reconcile("shop")
        # Every type is written alike by both sides.
        assert (whole.repaired, whole.differing, reader.read) == (0, 0, [])
        shop.run("alter publication strata_shop drop table products")
        shop.run(
            "update products set body = 'A lamp that changed unseen.' where id = 1; delete from products where id = 2; "
            "insert into products (id, region, name, body) values (500, 'r2', 'Lamp 500', 'A lamp that came unseen.')"
        )
        shop.run("alter publication strata_shop add table products")
        _altered(rig)
        rig.encoder.texts.clear()
        found = await feed.reconcile("shop")
        await feed.settled(300)
        assert (found.missing, found.stale, found.surplus) == (2, 2, 2)
        assert found.differing <= 6
        assert len(reader.read) < _ROWS / 4
        served = texts(rig.index, "products")
        assert len(served) == _ROWS + 1
        assert (served["r1-1"], served["r1-4"]) == ("Lamp 1: A lamp that changed unseen.", "Lamp 4: A lamp number 4 for a desk.")
        assert served["r2-500"] == "Lamp 500: A lamp that came unseen."
        assert "r2-2" not in served
        # The lost row's document may have been removed by the comparison of ledger and index, and its vector with it.
        assert {entry.partition("\n")[0] for entry in rig.encoder.texts} <= {"Lamp 1", "Lamp 500", "Lamp 5"}
        again = await feed.reconcile("shop")
        assert (again.repaired, again.differing) == (0, 0)
        # A column that no document is made of is taken over, and its rows were no drift.
        shop.run("alter table products add column extra int default 7")
        grown = await feed.reconcile("shop")
        assert (grown.repaired, (await feed.reconcile("shop")).differing) == (0, 0)
        assert grown.differing > 0


async def test_rows_that_change_while_they_are_compared_are_no_drift(rig: Rig, tables: Tables, shop: _Shop) -> None:
    """With transactions open before, during and after the snapshot nothing is mended, and the index ends equal to the table."""
    declared = tables({"shop": {"public.products": _MAPPING}})
    stopping, numbers = threading.Event(), iter(range(1, 10_000))

    def write() -> None:
        connection = psycopg2.connect(shop.dsn)
        while not stopping.is_set():
            with connection, connection.cursor() as cursor:
                for _ in range(3):
                    number = next(numbers)
                    cursor.execute("update products set price = %s where id = %s", (number, number % 20 + 1))
                    stopping.wait(0.01)
        connection.close()

    async with _running(rig, shop, declared, _Watched(PostgresReader(shop.declaration), [])) as feed:
        writer = asyncio.create_task(asyncio.to_thread(write))
        found = [await feed.reconcile("shop") for _ in range(3)]
        stopping.set()
        await writer
        await feed.settled(300)
        assert [drift.repaired for drift in found] == [0, 0, 0]
        after = await feed.reconcile("shop")
        assert (after.repaired, after.differing) == (0, 0)


async def test_a_source_that_is_away_is_said_and_the_index_is_compared_nevertheless(rig: Rig, tables: Tables, shop: _Shop) -> None:
    """A transaction that stays open keeps the source from being compared in time; what the index lost is mended all the same."""
    declared = tables({"shop": {"public.products": _MAPPING}})
    reader = _Watched(PostgresReader(shop.declaration, open_seconds=0.3), [])
    async with _running(rig, shop, declared, reader) as feed:
        rig.index.replace(Kind.FLUID, {"products/r1-1": []})
        blocking = psycopg2.connect(shop.dsn)
        blocking.cursor().execute("update products set price = 1 where id = 1")
        with pytest.raises(UnavailableError, match="a transaction that is open blocks it"):
            await feed.reconcile("shop")
        blocking.rollback()
        blocking.close()
        assert feed.status()[0].drift.missing == 1
        assert "r1-1" in texts(rig.index, "products")
