"""Measures how many events a second a replication source publishes: 10,000 transactions of one row, read as a backlog and as they come."""  # noqa: INP001 - a script

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

from chassis.messaging import connect
from chassis.settings import ServiceSettings
from ingestor.postgres import ReplicationDeclaration, ReplicationSource
from testkit.nats import nats_server
from testkit.postgres import postgres_binaries, postgres_server


async def _bus() -> Client:
    return (await connect(ServiceSettings(), "ingestor", reconnect=False)).client


def _write(dsn: str, first: int, count: int) -> None:
    connection = psycopg2.connect(dsn)
    connection.autocommit = True
    with connection.cursor() as cursor:
        for number in range(first, first + count):
            cursor.execute("insert into rows values (%s, %s, %s)", (number, f"title {number}", "text of a row " * 12))
    connection.close()


async def _until_published(source: ReplicationSource, events: int) -> None:
    while source.status().events_published < events:  # noqa: ASYNC110 - the status is what is measured
        await asyncio.sleep(0.01)


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def measure(dsn: str, transactions: int) -> dict[str, float]:
    """Return events per second of a backlog, and of a writer that commits as fast as it can; rates include the stream's sync to disk."""
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
    published = source.status().events_published
    started = time.perf_counter()
    writing = asyncio.create_task(asyncio.to_thread(_write, dsn, transactions, transactions))
    await _until_published(source, published + transactions)
    live = time.perf_counter() - started
    await writing
    await _stop(task)
    return {
        "transactions": transactions,
        "backlog_events_per_second": round(transactions / backlog),
        "backlog_cpu_microseconds_per_event": round(backlog_cpu / transactions * 1e6),
        "live_events_per_second": round(transactions / live),
    }


async def main() -> int:
    """Start PostgreSQL and the bus, measure, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transactions", type=int, default=10_000)
    arguments = parser.parse_args()
    binaries = postgres_binaries()
    if binaries is None:
        sys.stdout.write("PostgreSQL's initdb and postgres are not installed\n")
        return 1
    with tempfile.TemporaryDirectory() as folder, postgres_server(binaries) as postgres, nats_server(Path(folder) / "state") as bus:
        await bus.declare()
        os.environ |= {"STRATA_STATE_DIR": str(bus.state_dir), "STRATA_PORT_OFFSET": str(bus.port_offset)}
        sys.stdout.write(json.dumps(await measure(postgres.create_database("bench"), arguments.transactions)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
