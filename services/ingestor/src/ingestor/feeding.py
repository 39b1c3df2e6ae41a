"""Puts the declared sources of change events together: what reads their logs, what takes their events in, what is told of both."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from nats.aio.client import Client

from chassis.logging import get_logger
from chassis.messaging import Bus, connect
from chassis.settings import ServiceSettings
from chassis.tasks import end
from ingestor.cdc.declaration import FeedSettings
from ingestor.cdc.feed import Feed
from ingestor.cdc.mapping import SourceMapping, Table
from ingestor.library import Library
from ingestor.postgres import PostgresReader, ReplicationDeclaration, ReplicationSource, Signal, SlotLagging, SlotLost
from knowledge.index import Index

log = get_logger("ingestor")
_HEAD_START_SECONDS = 1.0


class Sources:
    """Every declared source; those of driver `postgres` are read here."""

    def __init__(
        self,
        tables: Sequence[Table],
        settings: ServiceSettings,
        feeding: FeedSettings,
        bus: Bus,
        index: Index,
        library: Library,
        ledger: Path,
    ) -> None:
        """Connect to nothing yet."""
        by_name = {table.source.name: table.source for table in tables if table.source.driver == "postgres"}

        async def own_connection() -> Client:
            return (await connect(settings, "ingestor", reconnect=False)).client

        declarations = {name: _declaration(source, tables) for name, source in by_name.items()}
        self.replications: Mapping[str, ReplicationSource] = {
            name: ReplicationSource(declaration, own_connection, on_signal=self._heard) for name, declaration in declarations.items()
        }
        readers = {name: PostgresReader(declarations[name], opened=source.want) for name, source in self.replications.items()}
        self.feed = Feed(tables, index, library, ledger, bus, feeding, resnapshot=self._resnapshot, readers=readers, sending=self._sending)

    async def run(self) -> None:
        """Read and take in until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(self.feed.run()), *(tasks.create_task(source.run()) for source in self.replications.values())]
            try:
                await asyncio.wait(running)
            finally:
                # The group would cancel each of them once only.
                await end(*running)

    async def begun(self, seconds: float) -> None:
        """Wait until every source is read, at most `seconds`, and a moment longer for what changed while nobody read it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                # States of what runs beside, asked for once in the life of a process.
                while any(source.status().state != "streaming" for source in self.replications.values()):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        await asyncio.sleep(_HEAD_START_SECONDS)

    async def _resnapshot(self, source: str, reason: str) -> None:
        if source in self.replications:
            self.replications[source].request_snapshot(reason)
        else:
            log.error("snapshot_needed", source=source, reason=reason)

    def _sending(self, source: str) -> bool:
        return source not in self.replications or self.replications[source].status().state == "streaming"

    def _heard(self, signal: Signal) -> None:
        """Pass on what breaks a promise; everything else is in logs and gauges already."""
        if isinstance(signal, SlotLost | SlotLagging):
            lost = isinstance(signal, SlotLost)
            detail = signal.reason if isinstance(signal, SlotLost) else f"{signal.lag_bytes} bytes behind, {signal.bound_bytes} are allowed"
            self.feed.promises.broken(signal.source, "slot_lost" if lost else "slot_lagging", detail)


def _declaration(source: SourceMapping, tables: Sequence[Table]) -> ReplicationDeclaration:
    own = [table for table in tables if table.source.name == source.name]
    return ReplicationDeclaration(
        name=source.name,
        dsn_env=source.dsn_env,
        dsn_file=source.dsn_file,
        slot=source.slot or "",
        publication=source.publication or "",
        tables={table.name: tuple(sorted(table.columns)) for table in own},
        keys={table.name: table.mapping.key for table in own},
    )
