"""Takes records from the bus in groups, and acknowledges what is on the disk."""

import asyncio
import json
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import BinaryIO

from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.errors import APIError
from nats.js.errors import Error as JetStreamError
from prometheus_client import Counter, Gauge, Histogram

from audit import wire
from audit.head import load_signer
from audit.ledger import Ledger, Received, try_lock
from audit.settings import Settings
from chassis.errors import FailedPreconditionError, UnavailableError
from chassis.logging import get_logger
from chassis.messaging import Bus
from contracts.streams import AUDIT_WRITER, STATUS

log = get_logger("audit")
STATUS_KEY = "audit"
_FETCH_SECONDS = 0.25
_LOCK_POLL_SECONDS = 0.5

WRITTEN = Counter("strata_audit_records_written_total", "Records that reached the log.")
REPEATED = Counter("strata_audit_records_repeated_total", "Deliveries of records that were already logged.")
WRITE_SECONDS = Histogram("strata_audit_write_duration_seconds", "Time of a group until it is on the disk.")
WRITE_ERRORS = Counter("strata_audit_write_errors_total", "Groups that could not be written and are tried again.")
WRITABLE = Gauge("strata_audit_writable", "Whether the log takes records.")


class Writer:
    """The one process that writes the log; a second one waits for its lock."""

    def __init__(self, bus: Bus, settings: Settings) -> None:
        """Touch nothing before `run`."""
        self._bus, self._settings = bus, settings
        self._ledger: Ledger | None = None
        self._stopping = asyncio.Event()
        self._published: tuple[bool, str] | None = None
        self.writable = False

    def ledger(self) -> Ledger:
        """Return the open log; raise UnavailableError while another process has it or it is damaged."""
        if self._ledger is None:
            raise UnavailableError("the audit log is not open here")
        return self._ledger

    async def run(self) -> None:
        """Write until `stop`; a full disk or a bus that is away only pauses it."""
        lock = await self._locked()
        if lock is None:
            return
        try:
            self._ledger = await self._opened()
            await self._consume()
        finally:
            if self._ledger is not None:
                self._ledger.close()
            lock.close()

    def stop(self) -> None:
        """Finish the group at hand and leave."""
        self._stopping.set()

    async def _locked(self) -> BinaryIO | None:
        waited = False
        while (lock := try_lock(self._settings.folder)) is None:
            if not waited:
                log.info("writer_waiting", folder=str(self._settings.folder))
            waited = True
            if await self._sleep(_LOCK_POLL_SECONDS):
                return None
        return lock

    async def _opened(self) -> Ledger | None:
        """Open the log, again and again while the disk is full; a damaged one is never written to."""
        started, settings = time.perf_counter(), self._settings
        while True:
            try:
                signer = await asyncio.to_thread(load_signer, settings.state_dir)
                ledger = await asyncio.to_thread(
                    Ledger, settings.folder, signer, segment_bytes=settings.segment_bytes, min_free_bytes=settings.min_free_bytes
                )
            except (OSError, FailedPreconditionError) as error:
                log.error("log_not_opened", error=str(error))  # noqa: TRY400 - the message is the whole story
                await self._report(writable=False, reason=str(error))
                if await self._sleep(settings.retry_seconds):
                    return None
            else:
                log.info("log_opened", records=ledger.head.size, seconds=round(time.perf_counter() - started, 3))
                return ledger

    async def _consume(self) -> None:
        if self._ledger is None:
            return
        subscription = await self._bus.js.pull_subscribe_bind(consumer=AUDIT_WRITER.name, stream=AUDIT_WRITER.stream)
        while not self._stopping.is_set():
            await self._check_space(self._ledger)
            try:
                messages = await subscription.fetch(self._settings.batch_size, timeout=_FETCH_SECONDS)
            except TimeoutError:
                continue
            except (NatsError, APIError) as error:
                log.warning("fetch_failed", error=repr(error))
                await self._sleep(_FETCH_SECONDS)
                continue
            await self._handle(self._ledger, messages)
        # A drain of the connection would wait for whatever is still queued here.
        await subscription.unsubscribe()

    async def _check_space(self, ledger: Ledger) -> None:
        """Say so before the first record is refused, and when there is room again."""
        try:
            ledger.check_space()
        except OSError as error:
            await self._report(writable=False, reason=str(error))
        else:
            await self._report(writable=True)

    async def _handle(self, ledger: Ledger, messages: list[Msg]) -> None:
        group = [wire.to_received(message) for message in messages]
        lease = asyncio.create_task(self._renew(messages))
        try:
            written = await self._written(ledger, group)
        finally:
            lease.cancel()
        for message in messages:
            with suppress(NatsError):
                await (message.nak() if written is None else message.ack())
        if written is not None:
            WRITTEN.inc(written)
            REPEATED.inc(len(messages) - written)

    async def _written(self, ledger: Ledger, group: list[Received]) -> int | None:
        """Return how many records of the group were new, once all are on the disk; None when told to stop first."""
        delay = 0.1
        while True:
            started = time.perf_counter()
            try:
                written = await asyncio.to_thread(ledger.append, group)
            except OSError as error:
                WRITE_ERRORS.inc()
                log.error("write_failed", error=str(error), records=len(group))  # noqa: TRY400 - the message is the whole story
                await self._report(writable=False, reason=str(error))
                if await self._sleep(delay):
                    return None
                delay = min(delay * 2, self._settings.retry_seconds)
            else:
                WRITE_SECONDS.observe(time.perf_counter() - started)
                await self._report(writable=True)
                return written

    async def _renew(self, messages: list[Msg]) -> None:
        while True:
            await asyncio.sleep(AUDIT_WRITER.ack_wait_seconds / 3)
            for message in messages:
                with suppress(NatsError):
                    await message.in_progress()

    async def _report(self, *, writable: bool, reason: str = "") -> None:
        """Tell the gateway, which refuses requests that could not be recorded; repeat until the bus took it."""
        self.writable = writable
        WRITABLE.set(writable)
        if self._published == (writable, reason):
            return
        value = {"writable": writable, "reason": reason, "at": datetime.now(UTC).isoformat()}
        try:
            bucket = await self._bus.js.key_value(STATUS)
            await bucket.put(STATUS_KEY, json.dumps(value).encode())
        except (TimeoutError, NatsError, JetStreamError) as error:
            log.warning("status_not_published", error=repr(error))
            return
        self._published = (writable, reason)
        log.info("status_published", writable=writable, reason=reason)

    async def _sleep(self, seconds: float) -> bool:
        """Wait; return True at once when told to stop."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
        return self._stopping.is_set()
