"""Crashes and restarts of the driver, of PostgreSQL and of the bus; sources that cannot be read as declared."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from source_rig import Database, Start, Stream, bus_connection, declaration, until

from chassis.errors import FailedPreconditionError, UnavailableError
from contracts.subjects import CDC_STREAM
from ingestor.postgres import ReplicationDeclaration, ReplicationSource, SourceBlocked
from testkit.nats import NatsServer
from testkit.postgres import PostgresServer

DRIVER = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
from source_rig import bus_connection
from ingestor.postgres import ReplicationDeclaration, ReplicationSource
asyncio.run(ReplicationSource(ReplicationDeclaration.model_validate_json(sys.argv[2]), bus_connection).run())
"""


def spawn(settings: ReplicationDeclaration, dsn: str) -> subprocess.Popen[bytes]:
    """Run a source in a process of its own, which reads its connection string from the environment."""
    body = settings.model_copy(update={"dsn": None, "dsn_env": "SHOP_DSN"}).model_dump_json()
    arguments = [sys.executable, "-c", DRIVER, str(Path(__file__).parent), body]
    return subprocess.Popen(arguments, env={**os.environ, "SHOP_DSN": dsn}, stdout=subprocess.DEVNULL)


def numbers(changes: list[dict[str, Any]]) -> list[int]:
    """Return the policies' ids in order of arrival, creations only."""
    return [change["after"]["id"] for change in changes if change["op"] in "rc"]


@pytest.mark.usefixtures("bus")
async def test_a_killed_driver_resumes_inside_a_transaction_with_the_same_ids(shop: Database, start: Start, stream: Stream) -> None:
    """After kill -9 in the middle of a transaction, nothing is missing, and what is sent again has ids that the stream knows."""
    settings = declaration(shop, window_events=20)
    await (await start(settings)).stop()
    shop.run("insert into shop.policy (title) select 'before ' || g from generate_series(1, 50) g")
    shop.run("insert into shop.policy (title, body) select 'p' || g, repeat('x', 300) from generate_series(1, 6000) g")
    process = spawn(settings, shop.dsn)
    js = stream.admin.jetstream()

    async def is_inside() -> bool:
        # Not what it holds, which takes longer to read than to publish.
        return (await js.stream_info(CDC_STREAM)).state.messages >= 300

    try:
        await until(is_inside)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert 50 < len(await stream.changes()) < 6050

    running = await start(settings)
    shop.run("insert into shop.policy (title) values ('after')")
    changes = await stream.has(6051)

    # Repeats of the first part would show as ids that are there twice.
    assert numbers(changes) == list(range(1, 6052))
    assert running.source.status().events_published >= 6001


async def test_a_cancelled_driver_confirms_what_the_stream_has(shop: Database, start: Start, stream: Stream) -> None:
    """A clean end leaves nothing of complete transactions to be sent again."""
    running = await start(declaration(shop, status_seconds=10))
    shop.run("insert into shop.policy (title) values ('one')")
    [change] = await stream.has(1)
    await running.stop()

    query = "select (confirmed_flush_lsn - '0/0')::bigint from pg_replication_slots where slot_name = %s"
    await until(lambda: shop.run(query, f"s_{shop.name}")[0][0] > change["source"]["commit_lsn"])
    assert running.source.status().state == "stopped"


async def test_the_bus_restarts_while_changes_stream(shop: Database, start: Start, stream: Stream, bus: NatsServer) -> None:
    """Killed and started twice under a writer, the stream ends with every change once and in order."""
    running = await start(declaration(shop, window_events=50))
    stopping = asyncio.Event()
    written = 0

    async def write() -> None:
        nonlocal written
        while not stopping.is_set():
            await asyncio.to_thread(shop.run, "insert into shop.policy (title) select 'p' from generate_series(1, 20)")
            written += 20
            await asyncio.sleep(0.005)

    writer = asyncio.create_task(write())
    for _ in range(2):
        await asyncio.sleep(0.5)
        bus.kill()
        await asyncio.sleep(0.3)
        bus.start()
        await running.streaming()
    await asyncio.sleep(0.5)
    stopping.set()
    await writer

    assert numbers(await stream.has(written)) == list(range(1, written + 1))


async def test_postgresql_restarts_while_changes_stream(shop: Database, start: Start, stream: Stream, postgres: PostgresServer) -> None:
    """A crash of the source ends in the same slot going on where it was, without a snapshot."""
    running = await start(declaration(shop))
    shop.run("insert into shop.policy (title) values ('one')")
    await stream.has(1)
    postgres.kill()
    await until(lambda: running.source.status().state == "waiting")
    assert running.source.status().error_code == "source_unavailable"
    postgres.start()
    shop.run("insert into shop.policy (title) values ('two')")

    assert [change["after"]["title"] for change in await stream.has(2)] == ["one", "two"]
    assert running.source.status().snapshots == 1


async def test_a_second_driver_waits_until_the_first_is_gone(shop: Database, start: Start, stream: Stream) -> None:
    """One slot has one reader; the other is told so, sends nothing, and takes over."""
    first = await start(declaration(shop))
    second = await start(declaration(shop), streaming=False)
    await until(lambda: second.source.status().error_code == "replication_slot_in_use")
    await first.stop()
    await second.streaming()
    shop.run("insert into shop.policy (title) values ('one')")
    await stream.has(1)
    assert second.source.status().snapshots == 0


@pytest.mark.parametrize(
    ("prepare", "changes", "code", "remedy"),
    [
        ("select 1", {"tables": ["shop.missing"]}, "source_table_missing", "'shop.policy'"),
        ("select 1", {"tables": {"shop.stock": ["colour"]}}, "source_column_missing", "no column 'colour'"),
        ("create table shop.plain (n int)", {"tables": ["shop.plain"]}, "source_table_without_key", "ADD PRIMARY KEY"),
        ("select 1", {"keys": {"shop.policy": ["title"]}}, "source_key_not_identity", "REPLICA IDENTITY FULL"),
        ("select 1", {"keys": {"shop.stock": ["sku"]}}, "source_key_not_unique", "CREATE UNIQUE INDEX ON shop.stock (sku)"),
        (
            "alter table shop.stock add twice int generated always as (quantity * 2) stored",
            {"tables": {"shop.stock": ["twice"]}},
            "source_column_generated",
            "columns that it is made of",
        ),
        ("select 1", {"user": "reader"}, "replication_permission_missing", "ALTER ROLE"),
        ("select 1", {"user": "replicator"}, "source_permission_missing", "GRANT"),
        ("select 1", {"user": "nobody_at_all"}, "source_authentication_failed", "create the role"),
        ("select 1", {"database": "nowhere"}, "source_database_missing", "existing database"),
        ("select 1", {"dsn": "host=x pass word=secret"}, "source_dsn_invalid", "malformed"),
    ],
)
async def test_a_source_that_cannot_be_read_says_what_to_do(
    shop: Database, prepare: str, changes: dict[str, Any], code: str, remedy: str
) -> None:
    """Each wrong declaration or missing right has a code of its own and an error that names the remedy, never the connection string."""
    shop.run(
        "drop role if exists reader; create role reader login; drop role if exists replicator; create role replicator login replication"
    )
    shop.run(prepare)
    dsn = shop.dsn.replace("user=postgres", f"user={changes.pop('user', 'postgres')}")
    dsn = dsn.replace(f"dbname={shop.name}", f"dbname={changes.pop('database', shop.name)}")
    source = ReplicationSource(declaration(shop, **{"dsn": dsn, **changes}), bus_connection)

    with pytest.raises(FailedPreconditionError) as raised:
        await source.check()

    assert raised.value.code == code
    assert remedy in str(raised.value)
    assert "secret" not in str(raised.value)


async def test_a_server_without_logical_decoding_is_named(postgres: PostgresServer, shop: Database) -> None:
    """With another wal_level the error says which setting to change."""
    configuration = postgres.folder / "data" / "postgresql.auto.conf"
    kept = configuration.read_text()
    shop.run("select pg_drop_replication_slot(slot_name) from pg_replication_slots where not active")
    postgres.stop()
    configuration.write_text(f"{kept}wal_level = replica\n")
    try:
        postgres.start()
        with pytest.raises(FailedPreconditionError) as raised:
            await ReplicationSource(declaration(shop), bus_connection).check()
    finally:
        postgres.stop()
        configuration.write_text(kept)
        postgres.start()
    assert raised.value.code == "wal_level_not_logical"
    assert "wal_level = logical" in str(raised.value)


async def test_a_role_without_rights_on_the_tables_is_blocked_until_they_are_granted(shop: Database, start: Start, stream: Stream) -> None:
    """Who may replicate and read but not publish is told the statement for the owner; once it was run, the source starts by itself."""
    shop.run("drop role if exists replicator; create role replicator login replication")
    shop.run("grant usage on schema shop to replicator; grant select on all tables in schema shop to replicator")
    settings = declaration(shop, dsn=shop.dsn.replace("user=postgres", "user=replicator"))
    running = await start(settings, streaming=False)

    blocked = await until(lambda: next((signal for signal in running.signals if isinstance(signal, SourceBlocked)), None))

    assert blocked.code == "publication_permission_missing"
    assert "CREATE PUBLICATION strata_shop FOR TABLE shop.stock, shop.policy" in blocked.message
    shop.run("create publication strata_shop for table shop.stock, shop.policy")
    await running.streaming()
    shop.run("insert into shop.policy (title) values ('one')")
    await stream.has(1)
    shop.run("drop owned by replicator")


async def test_an_unreachable_server_is_a_retryable_error(shop: Database) -> None:
    """Nobody listens: the error may go away by itself."""
    dsn = "host=127.0.0.1 port=1 user=postgres dbname=postgres"
    with pytest.raises(UnavailableError, match="cannot connect"):
        await ReplicationSource(declaration(shop, dsn=dsn), bus_connection).check()


async def test_a_server_whose_log_went_back_is_refused(shop: Database, start: Start, admin: Client) -> None:
    """A restored or exchanged server, whose positions are below what was published, is blocked: its rows would all be taken for old."""
    await admin.jetstream().publish("cdc.shop.strata.watermark", b'{"op":"m","phase":"watermark","lsn":9223372036854775807}')
    running = await start(declaration(shop), streaming=False)

    blocked = await until(lambda: next((signal for signal in running.signals if isinstance(signal, SourceBlocked)), None))

    assert blocked.code == "source_went_back"
    assert shop.run("select 1 from pg_replication_slots where database = current_database() and not temporary") == []
