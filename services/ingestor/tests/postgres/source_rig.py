"""What tests of a source work with: its database, the stream, and the source while it runs."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg2
from nats.aio.client import Client
from nats.errors import Error as NatsError

from chassis.messaging import connect
from chassis.settings import ServiceSettings
from chassis.tasks import end
from contracts.subjects import CDC_STREAM
from ingestor.postgres import ReplicationDeclaration, ReplicationSource, Signal

TABLES = """
create schema shop;
create table shop.stock (store_id int, sku text, quantity int not null, price numeric(10,2), note text, primary key (store_id, sku));
create table shop.policy (id serial primary key, title text, body text, tags text[], meta jsonb, effective date);
alter table shop.policy alter column body set storage external;
"""


async def until(condition: Callable[[], Any], seconds: float = 180.0) -> Any:
    """Wait until a condition is true, and return what it returned; a coroutine function is awaited."""
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            found = await found if asyncio.iscoroutine(found) else found
            if found:
                return found
            await asyncio.sleep(0.05)


@dataclass
class Database:
    """A database of its own, and the name that its slot must not share."""

    dsn: str
    name: str
    connections: list[Any] = field(default_factory=list)

    def connect(self) -> Any:
        """Return a connection in autocommit."""
        connection = psycopg2.connect(self.dsn)
        connection.autocommit = True
        self.connections.append(connection)
        return connection

    def drop_slot(self, name: str) -> None:
        """Drop a replication slot once the server has noticed that its reader left; fail after two minutes."""
        for _ in range(1200):
            if self.run("select active from pg_replication_slots where slot_name = %s", name) == [(False,)]:
                break
            time.sleep(0.1)
        self.run("select pg_drop_replication_slot(%s)", name)

    def run(self, statements: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run statements in one transaction; return the rows of the last."""
        connection = psycopg2.connect(self.dsn)
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(statements, values)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()


@dataclass
class Stream:
    """What the stream of change events holds."""

    admin: Client

    async def messages(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Return subject, message id and body of every event, in order."""
        js = self.admin.jetstream()
        state = (await js.stream_info(CDC_STREAM)).state
        found = []
        subscription = await js.subscribe("cdc.>", stream=CDC_STREAM, ordered_consumer=True)
        for _ in range(state.messages):
            message = await subscription.next_msg(timeout=180)
            found.append((message.subject, (message.headers or {}).get("Nats-Msg-Id", ""), json.loads(message.data)))
        await subscription.unsubscribe()
        return found

    async def changes(self, table: str | None = None) -> list[dict[str, Any]]:
        """Return the events of rows, in order."""
        bodies = [body for _subject, _id, body in await self.messages() if body["op"] != "m"]
        return [body for body in bodies if table in {None, body["source"]["table"]}]

    async def controls(self) -> list[tuple[str, dict[str, Any]]]:
        """Return phase and body of the events that begin and end snapshots."""
        return [(body["phase"], body) for _subject, _id, body in await self.messages() if body["op"] == "m" and "snapshot_id" in body]

    async def has(self, count: int, table: str | None = None) -> list[dict[str, Any]]:
        """Wait for that many events of rows; return them."""

        async def enough() -> list[dict[str, Any]] | None:
            # A server that was just started again may not answer yet.
            with suppress(NatsError):
                if (await self.admin.jetstream().stream_info(CDC_STREAM)).state.messages >= count:
                    found = await self.changes(table)
                    return found if len(found) >= count else None
            return None

        found: list[dict[str, Any]] = await until(enough)
        return found


@dataclass
class Running:
    """A source that runs in a task."""

    source: ReplicationSource
    task: asyncio.Task[None]
    signals: list[Signal]

    async def streaming(self) -> None:
        """Wait until changes are read as they come."""
        await until(lambda: self.source.status().state == "streaming")

    async def stop(self) -> None:
        """Cancel it, as the end of the process would."""
        await end(self.task)


Start = Callable[..., Awaitable[Running]]


def declaration(database: Database, **changes: Any) -> ReplicationDeclaration:
    """Return a declaration of the shop's tables with waits that suit a test."""
    fields: dict[str, Any] = {
        "name": "shop",
        "dsn": database.dsn,
        "slot": f"s_{database.name}",
        "tables": ["shop.stock", "shop.policy"],
        "status_seconds": 0.1,
        "monitor_seconds": 0.2,
        "heartbeat_seconds": 0.5,
        "retry_seconds": 0.1,
        "longest_retry_seconds": 0.5,
        "blocked_retry_seconds": 0.3,
        "watermark_seconds": 0.2,
        "ack_timeout_seconds": 3.0,
    }
    return ReplicationDeclaration(**{**fields, **changes})


async def bus_connection() -> Client:
    """Return a connection as ingestor that does not mend itself."""
    return (await connect(ServiceSettings(), "ingestor", reconnect=False)).client
