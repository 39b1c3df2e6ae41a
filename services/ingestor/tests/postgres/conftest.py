"""A database of a real PostgreSQL, the real stream, and a source between them."""

import asyncio
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import psycopg2
import pytest
from nats.aio.client import Client

from ingestor.postgres import ReplicationDeclaration, ReplicationSource, Signal
from testkit.nats import NatsServer
from testkit.postgres import PostgresServer

sys.path.insert(0, str(Path(__file__).parent))
from source_rig import TABLES, Database, Running, Start, Stream, bus_connection


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[Database]:
    """Return an empty database; its slot is removed at the end, or the server would keep its log."""
    name = f"d{uuid.uuid4().hex[:12]}"
    made = Database(postgres.create_database(name), name)
    yield made
    for connection in made.connections:
        connection.close()
    slots = "from pg_replication_slots where database = current_database()"
    made.run(f"select pg_terminate_backend(active_pid) {slots} and active_pid is not null")
    deadline = time.monotonic() + 120
    # The server has few slots, and a reader that was told to leave takes its time.
    while made.run(f"select 1 {slots} and active") and time.monotonic() < deadline:
        time.sleep(0.02)
    with suppress(psycopg2.Error):
        made.run(f"select pg_drop_replication_slot(slot_name) {slots}")


@pytest.fixture
def shop(database: Database) -> Database:
    """Return a database with two tables of a shop."""
    database.run(TABLES)
    return database


@pytest.fixture
def stream(admin: Client) -> Stream:
    """Return the stream of change events."""
    return Stream(admin)


@pytest.fixture
async def start(bus: NatsServer) -> AsyncIterator[Start]:
    """Return what starts a source on a declaration; all are stopped at the end."""
    started: list[Running] = []

    async def begin(settings: ReplicationDeclaration, *, streaming: bool = True) -> Running:
        signals: list[Signal] = []
        source = ReplicationSource(settings, bus_connection, on_signal=signals.append)
        running = Running(source, asyncio.create_task(source.run()), signals)
        started.append(running)
        if streaming:
            await running.streaming()
        return running

    yield begin
    for running in started:
        await running.stop()
