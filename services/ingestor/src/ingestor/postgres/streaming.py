"""A slot's changes into the stream, confirmed to PostgreSQL transaction by transaction."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

from chassis.errors import ServiceError
from chassis.tasks import end
from ingestor.postgres import pgoutput
from ingestor.postgres.connections import LostSlotError, in_thread
from ingestor.postgres.declaration import ReplicationDeclaration
from ingestor.postgres.pgoutput import Begin, Commit
from ingestor.postgres.publishing import Publisher
from ingestor.postgres.replication import ReplicationStream
from ingestor.postgres.translating import Translator


@dataclass(frozen=True, slots=True)
class _Transaction:
    """A complete transaction: the number of its last event, and the position behind it."""

    last_event: int
    end_lsn: int
    committed_seconds: float


@dataclass
class Progress:
    """How far a source is; positions in bytes, times in seconds since 1970."""

    last_lsn: int = 0
    confirmed_lsn: int = 0
    last_commit_seconds: float | None = None
    events: int = 0
    # Somebody waits to hear that the stream is this far.
    wanted_lsn: int = 0


class Streaming:
    """Reads, publishes and confirms until the first of them fails."""

    def __init__(self, declaration: ReplicationDeclaration, translator: Translator, publisher: Publisher, progress: Progress) -> None:
        """Work for one session of the source, and record how far it is in `progress`."""
        self._declaration, self._translator, self._publisher = declaration, translator, publisher
        self._progress = progress
        self._stream = ReplicationStream(declaration)
        self._waiting: deque[_Transaction] = deque()
        self._marked_lsn, self._marked_event, self._marked_at = 0, publisher.last, 0.0
        self._counted = publisher.acked
        # Of this session alone: the server of the last one may have had another log.
        self._safe_lsn = 0

    async def run(self, watch: Callable[[], Coroutine[Any, Any, None]], started: Callable[[], None]) -> None:
        """Stream for ever, with `watch` beside it; raise what ended it, with everything acknowledged by then confirmed."""
        try:
            await in_thread(self._stream.open, interrupt=self._stream.interrupt)
            started()
            await _first_failure(self._read(), self._confirm(), self._broken(), watch())
        finally:
            with suppress(ServiceError, LostSlotError, TimeoutError):
                async with asyncio.timeout(self._declaration.drain_seconds):
                    await self._publisher.settled()
                self._advance()
            self._stream.close()

    async def _read(self) -> None:
        messages = self._stream.messages(settle=self._publisher.settled, idle=self._mark)
        async with aclosing(messages):
            async for lsn, payload in messages:
                await self._handle(lsn, payload)

    async def _handle(self, lsn: int, payload: bytes) -> None:
        message = pgoutput.decode(payload)
        if message is None:
            return
        if isinstance(message, Begin):
            self._translator.begin(message)
        elif isinstance(message, Commit):
            self._translator.commit()
            self._complete(_Transaction(self._publisher.last, message.end_lsn, message.committed_microseconds / 1e6))
        else:
            for event in await self._translator.events(lsn, message):
                await self._publisher.publish(event)
            self._progress.last_lsn = max(self._progress.last_lsn, lsn)

    def _complete(self, transaction: _Transaction) -> None:
        # Transactions without events are confirmed with the one before them, so that they cannot pile up.
        if self._waiting and self._waiting[-1].last_event == transaction.last_event:
            self._waiting.pop()
        self._waiting.append(transaction)

    async def _mark(self) -> None:
        """Say how far the stream is: soon after changes, and now and then while there are none."""
        lsn, now = self._stream.server_lsn, time.monotonic()
        if self._translator.in_transaction or lsn <= self._marked_lsn:
            return
        settings = self._declaration
        awaited = self._publisher.last > self._marked_event or self._marked_lsn < self._progress.wanted_lsn
        pause = settings.watermark_seconds if awaited else settings.heartbeat_seconds
        if now - self._marked_at >= pause:
            self._marked_lsn, self._marked_at = lsn, now
            self._marked_event = await self._publisher.publish(self._translator.writer.watermark(lsn))

    async def _confirm(self) -> None:
        while True:
            self._advance()
            await asyncio.sleep(self._declaration.status_seconds)

    def _advance(self) -> None:
        """Confirm what the stream has stored completely."""
        acked, progress = self._publisher.acked, self._progress
        while self._waiting and self._waiting[0].last_event <= acked:
            done = self._waiting.popleft()
            self._safe_lsn = progress.confirmed_lsn = done.end_lsn
            progress.last_commit_seconds = done.committed_seconds
        progress.events += acked - self._counted
        self._counted = acked
        self._stream.confirm(self._safe_lsn, everything=not self._waiting)

    async def _broken(self) -> None:
        raise await asyncio.shield(self._publisher.failure)


async def _first_failure(*works: Coroutine[Any, Any, None]) -> None:
    """Run all until one ends; end the others, and raise what ended it."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end(*tasks)
        errors = [error for task in tasks if not task.cancelled() and (error := task.exception())]
    if errors:
        raise errors[0]
