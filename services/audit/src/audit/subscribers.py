"""Takes records from the bus in groups, and acknowledges what is on the disk."""

import asyncio
import json
import sqlite3
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.errors import APIError
from nats.js.errors import Error as JetStreamError
from prometheus_client import Counter, Gauge, Histogram

from audit import wire
from audit.access import AccessLog
from audit.backlog import Backlog
from audit.durability import check_bus_syncs
from audit.governing import expire
from audit.keys import KeyVault, load_master_key
from audit.lease import Lease
from audit.leaves import InvalidLeafError
from audit.ledger import Ledger, Received
from audit.settings import Settings
from audit.trust import load_signer
from audit.view import View
from audit.witnessing import Witnessing
from chassis.errors import FailedPreconditionError, UnavailableError
from chassis.logging import get_logger
from chassis.messaging import Bus
from chassis.tasks import end, in_time
from contracts.streams import AUDIT_WRITER, LEASES, STATUS
from evidence.sealing import SealedError
from strata.gateway.v1.gateway_events_pb2 import Caller

log = get_logger("audit")
STATUS_KEY = "audit"
_FETCH_SECONDS = 0.25
_LEASE_POLL_SECONDS = 0.25
_RETAIN_SECONDS = 24 * 3600.0

WRITTEN = Counter("strata_audit_records_written_total", "Records that reached the log.")
REPEATED = Counter("strata_audit_records_repeated_total", "Deliveries of records that were already logged.")
WRITE_SECONDS = Histogram("strata_audit_write_duration_seconds", "Time of a group until it is on the disk.")
WRITE_ERRORS = Counter("strata_audit_write_errors_total", "Groups that could not be written and are tried again.")
WRITABLE = Gauge("strata_audit_writable", "Whether the log takes records.")


class Writer:
    """Writes the log while this process holds its lease; another one waits for it and takes over."""

    def __init__(self, bus: Bus, settings: Settings) -> None:
        """Touch nothing before `run`."""
        self._bus, self._settings = bus, settings
        self._ledger: Ledger | None = None
        self._witnessing: Witnessing | None = None
        self._backlog = Backlog(bus)
        self._stopping = asyncio.Event()
        self._published: tuple[bool, str, str] | None = None
        self.writable = False

    def ledger(self) -> Ledger:
        """Return the open log; raise UnavailableError while another process has it or it is damaged."""
        if self._ledger is None:
            raise UnavailableError("the audit log is not open here")
        return self._ledger

    async def run(self) -> None:
        """Write until `stop`; a full disk, a bus or a store of keys that is away only pauses it, and so does another writer."""
        while not self._stopping.is_set():
            await self._until_bus_syncs()
            lease = await self._leased()
            if lease is not None:
                await self._hold(lease)

    def stop(self) -> None:
        """Finish the group at hand and leave."""
        self._stopping.set()

    async def _until_bus_syncs(self) -> None:
        """Refuse to call anything recorded while the bus may lose what it acknowledged."""
        while not self._settings.allow_unsynced_bus and not self._stopping.is_set():
            try:
                await asyncio.to_thread(check_bus_syncs, self._settings.monitor_url)
            except FailedPreconditionError as error:
                await self._report(writable=False, reason=str(error))
                await self._sleep(self._settings.retry_seconds)
            else:
                return

    async def _leased(self) -> Lease | None:
        """Wait for the lease; None when told to stop first."""
        lease, waited = None, False
        while not self._stopping.is_set():
            with suppress(TimeoutError, NatsError):
                if lease is None:
                    bucket = await self._bus.js.key_value(LEASES)
                    lease = Lease(bucket, self._settings.run_folder, seconds=self._settings.lease_seconds, host=self._settings.host)
                if await lease.acquire(self._settings.folder):
                    return lease
                if not waited:
                    log.info("writer_waiting", folder=str(self._settings.folder))
                waited = True
            await self._sleep(_LEASE_POLL_SECONDS)
        return None

    async def _hold(self, lease: Lease) -> None:
        """Write for as long as the lease is ours."""
        keeping = asyncio.create_task(lease.keep())
        background: list[asyncio.Task[None]] = []
        try:
            self._ledger = await self._opened(lease, keeping)
            if self._ledger is not None:
                self._witnessing = Witnessing(self._settings, self._ledger)
                work = (self._witnessing.run(), self._retain(self._ledger), self._backlog.run())
                background = [asyncio.create_task(one) for one in work]
                await self._consume(self._ledger, keeping)
        finally:
            await end(keeping, *background)
            ledger, self._ledger, self.writable = self._ledger, None, False
            if self._witnessing is not None:
                self._witnessing.close()
                self._witnessing = None
            if ledger is not None:
                await asyncio.to_thread(ledger.close)
            await lease.release()

    async def _opened(self, lease: Lease, keeping: "asyncio.Task[None]") -> Ledger | None:
        """Open the log, again and again while the disk is full; a damaged one is never written to."""
        started = time.perf_counter()
        while not keeping.done():
            try:
                ledger = await asyncio.to_thread(open_ledger, self._settings, lease)
            except (OSError, FailedPreconditionError) as error:
                log.error("log_not_opened", error=str(error))  # noqa: TRY400 - the message is the whole story
                await self._report(writable=False, reason=str(error))
                if await self._sleep(self._settings.retry_seconds):
                    return None
            else:
                log.info("log_opened", records=ledger.size, seconds=round(time.perf_counter() - started, 3))
                return ledger
        return None

    async def _retain(self, ledger: Ledger) -> None:
        """Destroy the keys whose time is over, once a day; what went is on record."""
        access = AccessLog(self._bus)
        caller = Caller(tenant="system", role="audit")
        while True:
            for retention, days in self._settings.retention_days.items():
                before = (datetime.now(UTC) - timedelta(days=days)).strftime("%Y-%m")
                with suppress(OSError, UnavailableError):
                    if count := await asyncio.to_thread(expire, ledger, retention, before):
                        log.info("keys_expired", retention=retention, before=before, keys=count)
                        await access.record(caller, "keys_expired", retention=retention, before=before, keys=count)
            await asyncio.sleep(_RETAIN_SECONDS)

    async def _consume(self, ledger: Ledger, keeping: "asyncio.Task[None]") -> None:
        subscription = await self._bus.js.pull_subscribe_bind(consumer=AUDIT_WRITER.name, stream=AUDIT_WRITER.stream)
        while not self._stopping.is_set() and not keeping.done():
            await self._check_space(ledger)
            try:
                messages = await subscription.fetch(self._settings.batch_size, timeout=_FETCH_SECONDS)
            except TimeoutError:
                continue
            except (NatsError, APIError) as error:
                log.warning("fetch_failed", error=repr(error))
                await self._sleep(_FETCH_SECONDS)
                continue
            await self._handle(ledger, messages, keeping)
        # A drain of the connection would wait for whatever is still queued here.
        with suppress(NatsError):
            await subscription.unsubscribe()

    async def _check_space(self, ledger: Ledger) -> None:
        """Say so before the first record is refused, and when there is room again: on the disk, and in the stream."""
        problem = self._backlog.problem
        try:
            ledger.check_space()
        except OSError as error:
            problem = str(error)
        await self._report(writable=not problem, reason=problem)

    async def _handle(self, ledger: Ledger, messages: list[Msg], keeping: "asyncio.Task[None]") -> None:
        group = [wire.to_received(message) for message in messages]
        lease = asyncio.create_task(self._renew(messages))
        try:
            written = await self._written(ledger, group, keeping)
        finally:
            lease.cancel()
        for message in messages:
            with suppress(NatsError):
                await (message.nak() if written is None else message.ack())
        if written is not None:
            WRITTEN.inc(written)
            REPEATED.inc(len(messages) - written)

    async def _written(self, ledger: Ledger, group: list[Received], keeping: "asyncio.Task[None]") -> int | None:
        """Return how many records of the group were new, once all are on the disk; None when told to stop or somebody else writes."""
        delay = 0.1
        while not keeping.done():
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
                await self._check_space(ledger)
                return written
        return None

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
        warning = self._witnessing.warning if self._witnessing is not None else ""
        if self._published == (writable, reason, warning):
            return
        value = {"writable": writable, "reason": reason, "warn": warning, "at": datetime.now(UTC).isoformat()}
        try:
            bucket = await self._bus.js.key_value(STATUS)
            await bucket.put(STATUS_KEY, json.dumps(value).encode())
        except (TimeoutError, NatsError, JetStreamError) as error:
            log.warning("status_not_published", error=repr(error))
            return
        self._published = (writable, reason, warning)
        log.info("status_published", writable=writable, reason=reason, warning=warning)

    async def _sleep(self, seconds: float) -> bool:
        """Wait; return True at once when told to stop."""
        with suppress(TimeoutError):
            await in_time(seconds, self._stopping.wait())
        return self._stopping.is_set()


def open_ledger(settings: Settings, lease: Lease) -> Ledger:
    """Open the log for the holder of the lease; raise OSError or FailedPreconditionError when it cannot be written."""
    signer = load_signer(settings.state_dir)
    vault = KeyVault(settings.keys_file, load_master_key(settings.master_key_file))
    try:
        return Ledger(
            settings.folder,
            signer,
            vault,
            View(settings.run_folder / "view.db", signer.name, vault.token),
            segment_bytes=settings.segment_bytes,
            min_free_bytes=settings.min_free_bytes,
            epoch=lease.epoch,
            still_ours=lease.check,
            retention=settings.retention_days,
        )
    except sqlite3.Error as error:
        raise OSError(f"the view of the audit log does not work: {error!r}") from error
    except (SealedError, InvalidLeafError) as error:
        raise FailedPreconditionError(f"the audit log is damaged: {error}; `strata audit verify` says where") from error
