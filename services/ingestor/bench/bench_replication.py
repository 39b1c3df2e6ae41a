"""Measures how fast a replication source publishes a backlog, and how long a change takes from its commit into the stream."""  # noqa: INP001 - a script

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psycopg2
from nats.aio.client import Client
from nats.js.api import DeliverPolicy

from chassis.messaging import connect
from chassis.settings import ServiceSettings
from ingestor.postgres import ReplicationDeclaration, ReplicationSource
from testkit.nats import nats_server
from testkit.postgres import postgres_binaries, postgres_server


async def _bus() -> Client:
    return (await connect(ServiceSettings(), "ingestor", reconnect=False)).client


def _write(dsn: str, first: int, count: int, rate: float = 0.0) -> None:
    """Commit rows one by one, as fast as it goes or at a rate per second."""
    connection = psycopg2.connect(dsn)
    connection.autocommit = True
    started = time.perf_counter()
    with connection.cursor() as cursor:
        for number in range(count):
            if rate:
                time.sleep(max(0.0, started + number / rate - time.perf_counter()))
            cursor.execute("insert into rows values (%s, %s, %s)", (first + number, f"title {number}", "text of a row " * 12))
    connection.close()


async def _delays(admin: Client, count: int) -> list[float]:
    """Return the seconds from commit to arrival at a reader of the stream, of that many changes from now on, sorted."""
    policy = DeliverPolicy.NEW
    subscription = await admin.jetstream().subscribe("cdc.bench.public.rows", ordered_consumer=True, deliver_policy=policy)
    delays = []
    for _ in range(count):
        message = await subscription.next_msg(timeout=30)
        delays.append(time.time() - json.loads(message.data)["source"]["ts_ms"] / 1000)
    return sorted(delays)


async def _until_published(source: ReplicationSource, events: int) -> None:
    while source.status().events_published < events:  # noqa: ASYNC110 - the status is what is measured
        await asyncio.sleep(0.01)


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def measure(dsn: str, admin: Client, transactions: int, rate: float) -> dict[str, float]:
    """Return events per second of a backlog, and delays in milliseconds of changes at a rate; both include the stream's sync to disk."""
    declaration = ReplicationDeclaration(name="bench", dsn=dsn, tables=["public.rows"], status_seconds=0.05)
    connection = psycopg2.connect(dsn)
    with connection, connection.cursor() as cursor:
        cursor.execute("create table rows (id int primary key, title text, body text)")
    connection.close()
    source = ReplicationSource(declaration, _bus)
    task = asyncio.create_task(source.run())
    while source.status().state != "streaming":  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await _stop(task)
    await asyncio.to_thread(_write, dsn, 0, transactions)
    source = ReplicationSource(declaration, _bus)
    started, cpu = time.perf_counter(), time.process_time()
    task = asyncio.create_task(source.run())
    await _until_published(source, transactions)
    backlog, backlog_cpu = time.perf_counter() - started, time.process_time() - cpu
    reading = asyncio.create_task(_delays(admin, transactions))
    await asyncio.sleep(0.5)
    started = time.perf_counter()
    await asyncio.to_thread(_write, dsn, transactions, transactions, rate)
    written = time.perf_counter() - started
    delays = await reading
    await _stop(task)
    return {
        "transactions": transactions,
        "backlog_events_per_second": round(transactions / backlog),
        "backlog_cpu_microseconds_per_event": round(backlog_cpu / transactions * 1e6),
        "commits_per_second": round(transactions / written),
        "commit_to_stream_p50_milliseconds": round(delays[len(delays) // 2] * 1000, 1),
        "commit_to_stream_p95_milliseconds": round(delays[int(len(delays) * 0.95)] * 1000, 1),
        "commit_to_stream_max_milliseconds": round(delays[-1] * 1000, 1),
    }


async def main() -> int:
    """Start PostgreSQL and the bus, measure, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transactions", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=500.0, help="Commits per second of the second part.")
    arguments = parser.parse_args()
    binaries = postgres_binaries()
    if binaries is None:
        sys.stdout.write("PostgreSQL's initdb and postgres are not installed\n")
        return 1
    with tempfile.TemporaryDirectory() as folder, postgres_server(binaries) as postgres, nats_server(Path(folder) / "state") as bus:
        await bus.declare()
        os.environ |= {"STRATA_STATE_DIR": str(bus.state_dir), "STRATA_PORT_OFFSET": str(bus.port_offset)}
        admin = await bus.connect()
        found = await measure(postgres.create_database("bench"), admin, arguments.transactions, arguments.rate)
        await admin.close()
        sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
