"""What PostgreSQL is told is safe: never more than the stream has."""

import asyncio
import signal

from source_rig import Database, Start, Stream, declaration, until

from ingestor.postgres.pgoutput import Begin, Commit, decode
from ingestor.postgres.replication import ReplicationStream
from testkit.nats import NatsServer

CONFIRMED = "select (confirmed_flush_lsn - '0/0')::bigint from pg_replication_slots where slot_name = %s"


async def nothing() -> None:
    """Wait for nothing."""


async def test_what_the_stream_has_not_acknowledged_is_not_confirmed(shop: Database, start: Start, stream: Stream, bus: NatsServer) -> None:
    """While the bus is frozen the slot stays before the change, however often PostgreSQL is told how far we are."""
    settings = declaration(shop)
    await start(settings)
    assert bus.process is not None
    bus.process.send_signal(signal.SIGSTOP)
    [(before,)] = shop.run("insert into shop.policy (title) values ('one') returning (pg_current_wal_lsn() - '0/0')::bigint")
    await asyncio.sleep(1.0)
    [(confirmed,)] = shop.run(CONFIRMED, settings.slot_name)
    bus.kill()
    bus.start()

    [change] = await stream.has(1)

    assert confirmed < change["source"]["commit_lsn"]
    assert change["source"]["lsn"] >= before
    await until(lambda: shop.run(CONFIRMED, settings.slot_name)[0][0] > change["source"]["commit_lsn"])


async def test_a_transaction_from_before_does_not_confirm_the_one_that_waits(shop: Database) -> None:
    """While a transaction arrives whose changes are older than what was confirmed, a commit that still waits stays unconfirmed."""
    settings = declaration(shop)
    shop.run("create publication strata_shop for table shop.policy")
    shop.run("select pg_create_logical_replication_slot(%s, 'pgoutput')", settings.slot_name)
    old = shop.connect()
    old.autocommit = False
    old.cursor().execute("insert into shop.policy (title, body) select 'old', repeat('x', 300) from generate_series(1, 30000)")
    shop.run("insert into shop.policy (title) values ('acknowledged')")
    shop.run("insert into shop.policy (title) values ('waits')")
    old.commit()
    slot = ReplicationStream(settings)
    await asyncio.to_thread(slot.open)
    commits: list[Commit] = []
    read = 0
    try:
        async for _lsn, payload in slot.messages(settle=nothing, idle=nothing):
            message = decode(payload)
            if isinstance(message, Commit):
                commits.append(message)
            if isinstance(message, Begin) and len(commits) == 2:
                slot.confirm(commits[0].end_lsn, everything=False)
            read += len(commits) == 2
            if len(commits) == 2 and read % 2000 == 0:
                # The server answers in between, and psycopg2 takes the answer for a confirmation if it may.
                slot.confirm(commits[0].end_lsn, everything=False)
                await asyncio.sleep(0.05)
            if len(commits) == 3:
                break
        [(confirmed,)] = shop.run(CONFIRMED, settings.slot_name)
    finally:
        slot.close()

    assert confirmed <= commits[1].commit_lsn
    assert read > 30_000
