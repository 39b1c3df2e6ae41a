"""The replication connection: the messages of a slot one by one, and what was confirmed back."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Any

import psycopg2
import psycopg2.extras

from chassis.errors import ServiceError, UnavailableError
from ingestor.postgres.connections import Connection, LostSlotError, connect, is_lost_slot, translated
from ingestor.postgres.declaration import ReplicationDeclaration

_AT_ONCE = 64
_IDLE_SECONDS = 0.5


class ReplicationStream:
    """Reads a slot on the running loop: what is not read yet stays with the server, which bounds the memory here."""

    def __init__(self, declaration: ReplicationDeclaration) -> None:
        """Bind the declaration; nothing connects until `open`."""
        self._declaration = declaration
        self._connection: Connection | None = None
        self._cursor: Any = None
        self._last_start = 0
        self.confirmed_lsn = 0

    def open(self) -> None:
        """Start at what was confirmed last; raise LostSlotError for a slot that has lost its place. Blocks."""
        declaration = self._declaration
        self._connection = connect(declaration, replication=True)
        self._cursor = self._connection.cursor()
        options = {"proto_version": "1", "publication_names": f'"{declaration.publication_name}"'}
        try:
            self._cursor.start_replication(slot_name=declaration.slot_name, decode=False, options=options, status_interval=10)
        except psycopg2.Error as error:
            raise self._failure(error) from error

    def _failure(self, error: psycopg2.Error) -> ServiceError | LostSlotError:
        if is_lost_slot(error):
            return LostSlotError(" ".join(str(error).split()))
        return translated(error, self._declaration, "the replication stream ended")

    async def messages(self, *, settle: Callable[[], Any], idle: Callable[[], Any]) -> AsyncGenerator[tuple[int, bytes], None]:
        """Yield position and body of each message, for ever; `idle` is awaited whenever everything sent so far was read.

        psycopg2 confirms the server's position by itself once the last message's own position is not above what was confirmed. A
        transaction that began before that looks so while earlier commits still wait for the stream. Hence `settle`, which returns when
        nothing waits, is awaited before more is read, and `confirm` stays below the last message for as long as something waits.
        """
        read = 0
        while True:
            try:
                message = self._cursor.read_message()
            except psycopg2.Error as error:
                raise self._failure(error) from error
            if message is None:
                await idle()
                await self._readable()
                continue
            self._last_start = message.data_start
            if message.data_start <= self.confirmed_lsn:
                await settle()
            yield message.data_start, message.payload
            read += 1
            if read % _AT_ONCE == 0:
                await asyncio.sleep(0)

    async def _readable(self) -> None:
        """Wait until there may be more; a short while at most, for the connection may have ended without a word."""
        loop, readable = asyncio.get_running_loop(), asyncio.Event()
        descriptor = self._cursor.fileno()
        loop.add_reader(descriptor, readable.set)
        try:
            # Not wait_for, which can lose a cancellation that comes together with what it waits for.
            with suppress(TimeoutError):
                async with asyncio.timeout(_IDLE_SECONDS):
                    await readable.wait()
        finally:
            loop.remove_reader(descriptor)

    @property
    def server_lsn(self) -> int:
        """Position up to which the server has sent everything that was committed."""
        return int(self._cursor.wal_end)

    def confirm(self, lsn: int, *, everything: bool) -> None:
        """Tell the server that everything up to `lsn` is safe, and whether that is all it sent; also the sign of life it waits for."""
        safe = lsn if everything else min(lsn, self._last_start - 1)
        self.confirmed_lsn = max(self.confirmed_lsn, safe)
        try:
            self._cursor.send_feedback(write_lsn=self.server_lsn, flush_lsn=self.confirmed_lsn, reply=True)
        except psycopg2.Error as error:
            raise self._failure(error) from error

    def interrupt(self) -> None:
        """End what another thread asked."""
        if self._connection is not None and not self._connection.closed:
            with suppress(psycopg2.Error):
                self._connection.cancel()

    def close(self) -> None:
        """Leave."""
        if self._connection is not None:
            with suppress(psycopg2.Error):
                self._connection.close()


def ended() -> UnavailableError:
    """Return the error for a slot that nobody reads although we think that we do."""
    return UnavailableError("the server no longer sends", code="source_unavailable")
