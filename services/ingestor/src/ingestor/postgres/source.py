"""One declared source: its snapshot, its stream, and what happens when either fails."""

import asyncio
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, TypeVar

from chassis.errors import FailedPreconditionError, ServiceError, UnavailableError
from chassis.logging import get_logger
from ingestor.postgres import gauges
from ingestor.postgres.catalog import Catalog, Shape
from ingestor.postgres.connections import LostSlotError, in_thread
from ingestor.postgres.declaration import ReplicationDeclaration
from ingestor.postgres.envelopes import CONTROL_SCHEMA, EnvelopeWriter
from ingestor.postgres.publishing import Connect, Publisher
from ingestor.postgres.replication import ended
from ingestor.postgres.signals import Signal, SlotLagging, SlotLost, SourceBlocked
from ingestor.postgres.slots import Slot, Slots
from ingestor.postgres.snapshotting import Snapshotter
from ingestor.postgres.standing import Standing, standing
from ingestor.postgres.streaming import Progress, Streaming
from ingestor.postgres.translating import Translator
from ingestor.postgres.values import Types

T = TypeVar("T")
State = Literal["stopped", "starting", "snapshotting", "streaming", "waiting", "blocked"]
log = get_logger("ingestor.postgres")
_LOSSES = {"slot_dropped", "slot_lost", "slot_lag"}


@dataclass(frozen=True)
class SourceStatus:
    """How a source is; `error_code` and `error` belong to the states waiting and blocked."""

    name: str
    state: State
    last_lsn: int
    confirmed_lsn: int
    last_commit_seconds: float | None
    slot_lag_bytes: int | None
    slot_retained_bytes: int | None
    events_published: int
    snapshots: int
    error_code: str
    error: str


class ReplicationSource:
    """Publishes the rows and changes of one PostgreSQL database for as long as `run` runs."""

    def __init__(self, declaration: ReplicationDeclaration, connect: Connect, *, on_signal: Callable[[Signal], None] | None = None) -> None:
        """Bind the declaration and what connects to the bus, without reconnecting by itself; nothing connects before `run`."""
        self._declaration, self._connect = declaration, connect
        self._on_signal = on_signal or (lambda _signal: None)
        self._catalog = Catalog(declaration)
        self._slots = Slots(declaration, self._catalog)
        self._progress = Progress()
        self._slot: Slot | None = None
        self._state: State = "stopped"
        self._error = ("", "")
        # What the tables were made of when this session began, and whether they lacked a column since.
        self._standing, self._lacked = Standing({}, {}), False
        self._snapshots = 0
        self._counted = 0
        self._heartbeat_at = 0.0
        # After a snapshot the backlog of its duration is no reason for the next one.
        self._bounded = True
        self._wanted = ""
        self._wake = asyncio.Event()

    def status(self) -> SourceStatus:
        """Return how the source is now."""
        slot, progress = self._slot, self._progress
        return SourceStatus(
            name=self._declaration.name,
            state=self._state,
            last_lsn=progress.last_lsn,
            confirmed_lsn=progress.confirmed_lsn,
            last_commit_seconds=progress.last_commit_seconds,
            slot_lag_bytes=slot.lag_bytes if slot else None,
            slot_retained_bytes=slot.retained_bytes if slot else None,
            events_published=progress.events,
            snapshots=self._snapshots,
            error_code=self._error[0],
            error=self._error[1],
        )

    async def check(self) -> None:
        """Look whether the source can be read as declared; raise the ServiceError that says what to do."""
        catalog = Catalog(self._declaration)
        try:
            await in_thread(catalog.check, interrupt=catalog.interrupt)
        finally:
            catalog.close()

    def request_snapshot(self, reason: str = "requested") -> None:
        """Give up the slot and publish every row again, as soon as possible."""
        self._wanted = reason
        self._wake.set()

    def want(self, lsn: int) -> None:
        """Say soon, and not only at the next heartbeat, when everything up to a position is published."""
        self._progress.wanted_lsn = max(self._progress.wanted_lsn, lsn)

    async def run(self) -> None:
        """Publish until cancelled; what fails is tried again, with growing waits."""
        settings = self._declaration
        wait = settings.retry_seconds
        try:
            while True:
                streamed = self._snapshots, self._progress.confirmed_lsn
                try:
                    await self._session()
                except LostSlotError as loss:
                    self._lose(self._wanted or "slot_lost", str(loss))
                except FailedPreconditionError as error:
                    self._block(error)
                    await self._pause(settings.blocked_retry_seconds)
                    continue
                except ServiceError as error:
                    self._wait(error)
                except Exception as error:  # noqa: BLE001 - a bug in reading one source must not end the process of all
                    # A rendered traceback may show variables, and one of them is the connection string.
                    log.error("replication_failed", source=settings.name, traceback=traceback.format_exc())  # noqa: TRY400
                    self._wait(error)
                if streamed != (self._snapshots, self._progress.confirmed_lsn):
                    wait = settings.retry_seconds
                await self._pause(wait)
                wait = min(wait * 2, settings.longest_retry_seconds)
        finally:
            self._enter("stopped")

    async def _pause(self, seconds: float) -> None:
        """Wait, unless a snapshot is asked for meanwhile."""
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()

    async def _session(self) -> None:
        """Connect both sides, take a snapshot where one is due, then stream until something fails."""
        settings = self._declaration
        self._enter("starting")
        publisher = Publisher(
            self._connect,
            window_events=settings.window_events,
            window_bytes=settings.window_bytes,
            ack_timeout_seconds=settings.ack_timeout_seconds,
        )
        try:
            shapes = await self._checked()
            await publisher.open()
            _obey()
            writer = EnvelopeWriter(settings.name, self._catalog.database, settings.slot_name)
            types = Types()
            types.replace(await self._blocking(self._catalog.types))
            self._standing = await self._blocking(self._stand)
            reason = await self._why_snapshot(publisher, writer)
            _obey()
            if reason:
                await self._blocking(self._slots.drop)
            await self._blocking(lambda: self._slots.publish(shapes))
            if reason:
                floor = await _published(publisher, writer)
                await self._snapshot(Snapshotter(settings, self._slots, writer, types, publisher), shapes, reason, floor)
            keys = {shape.full_name: shape.key for shape in shapes}
            translator = Translator(writer, self._catalog, types, settings.tables, keys, self._on_signal)
            await Streaming(settings, translator, publisher, self._progress).run(self._watch, lambda: self._enter("streaming"))
        finally:
            gauges.REFUSED.labels(settings.name).inc(publisher.refused)
            await publisher.close()
            self._catalog.close()

    async def _checked(self) -> list[Shape]:
        """Return the declared tables; the bound of the slot holds also while somebody has to change something, or the bus is away."""
        try:
            shapes = await self._blocking(self._catalog.check)
        except FailedPreconditionError:
            with suppress(ServiceError):
                await self._hold_bound()
            raise
        await self._hold_bound()
        return shapes

    async def _hold_bound(self) -> None:
        if await self._blocking(self._is_over_bound):
            await self._blocking(self._slots.drop)

    async def _blocking(self, call: Callable[[], T]) -> T:
        return await in_thread(call, interrupt=self._catalog.interrupt)

    async def _why_snapshot(self, publisher: Publisher, writer: EnvelopeWriter) -> str:
        """Return why every row must be published (again), or nothing where the slot goes on from where it was."""
        slot = await self._blocking(self._slots.state)
        if self._wanted:
            return self._wanted
        if slot is not None and not slot.lost:
            if await self._blocking(self._slots.unpublished):
                return "tables_added"
            last = await publisher.last_control(writer.subject(CONTROL_SCHEMA, "snapshot"))
            return "tables_changed" if last and self._standing.differs(last.get("standing")) else ""
        reason = "slot_lost"
        if slot is None:
            last = await publisher.last_control(writer.subject(CONTROL_SCHEMA, "snapshot"))
            reason = "slot_dropped" if last and last.get("phase") == "end" else "initial"
        self._lose(reason, "there is no slot" if slot is None else "the server removed what the slot needs")
        return reason

    async def _snapshot(self, snapshotter: Snapshotter, shapes: list[Shape], reason: str, floor: int) -> None:
        self._enter("snapshotting")
        started = time.monotonic()
        taken = await snapshotter.run(shapes, reason, floor, self._standing.tables)
        self._lacked = False
        self._wanted, self._bounded = "", False
        self._snapshots += 1
        gauges.SNAPSHOTS.labels(taken.source, reason).inc()
        seconds = round(time.monotonic() - started, 3)
        log.info("snapshot_taken", source=taken.source, reason=reason, lsn=taken.lsn, rows=sum(taken.rows.values()), seconds=seconds)
        self._on_signal(taken)

    async def _watch(self) -> None:
        """Look at the slot now and then, and keep it moving."""
        settings = self._declaration
        while True:
            await self._blocking(self._look)
            await self._pause(settings.monitor_seconds)
            if self._wanted:
                raise LostSlotError(f"a snapshot is wanted: {self._wanted}")

    def _look(self) -> None:
        if time.monotonic() - self._heartbeat_at >= self._declaration.heartbeat_seconds:
            self._slots.heartbeat()
            self._heartbeat_at = time.monotonic()
        if self._is_over_bound():
            raise LostSlotError("the slot holds back more than it may")
        slot = self._slot
        if slot is None or slot.lost:
            raise LostSlotError("the slot is gone" if slot is None else "the server removed what the slot needs")
        if not slot.active:
            raise ended()
        self._look_at_tables()

    def _stand(self) -> Standing:
        return standing(self._catalog, self._declaration.tables)

    def _look_at_tables(self) -> None:
        """End the session where rows came or went without an event, or will: no table left, came anew, or lost a partition unheard."""
        now = self._stand()
        if now.lacking:
            # Deletions go on; every row is read again once the column is back.
            self._lacked = True
            return
        if self._lacked or now.differs(self._standing.tables):
            self._wanted = "tables_changed"
            raise LostSlotError("a declared table, its partitions or the type of a column changed")
        if missing := self._slots.unpublished():
            raise UnavailableError(f"source {self._declaration.name!r}: {missing} left the publication", code="source_unavailable")

    def _is_over_bound(self) -> bool:
        settings = self._declaration
        slot = self._slot = self._slots.state()
        self._measure()
        if slot is None or slot.lost:
            return False
        if slot.lag_bytes <= settings.slot_lag_bound_bytes:
            self._bounded = True
            return False
        if not self._bounded:
            return False
        lag, bound = slot.lag_bytes, settings.slot_lag_bound_bytes
        log.error("slot_lags", source=settings.name, slot=settings.slot_name, lag_bytes=lag, bound_bytes=bound)
        self._on_signal(SlotLagging(settings.name, settings.slot_name, lag, bound))
        self._lose("slot_lag", f"{lag} bytes behind, and {bound} are allowed")
        return True

    def _measure(self) -> None:
        name, slot, progress = self._declaration.name, self._slot, self._progress
        if slot is not None:
            gauges.SLOT_LAG.labels(name).set(slot.lag_bytes)
            gauges.SLOT_RETAINED.labels(name).set(slot.retained_bytes)
        if progress.last_commit_seconds is not None:
            gauges.SINCE_CHANGE.labels(name).set(max(0.0, time.time() - progress.last_commit_seconds))
        gauges.EVENTS.labels(name).inc(progress.events - self._counted)
        self._counted = progress.events

    def _lose(self, reason: str, text: str) -> None:
        """Remember that a snapshot is due, and say so once where changes were lost."""
        settings = self._declaration
        if reason in _LOSSES and self._wanted != reason:
            log.error("slot_lost", source=settings.name, slot=settings.slot_name, reason=reason, error=text)
            self._on_signal(SlotLost(settings.name, settings.slot_name, reason))
        self._wanted = reason

    def _block(self, error: FailedPreconditionError) -> None:
        if self._error != (error.code, str(error)):
            log.error("source_blocked", source=self._declaration.name, code=error.code, error=str(error))
            self._on_signal(SourceBlocked(self._declaration.name, error.code, str(error)))
        self._enter("blocked", error)

    def _wait(self, error: Exception) -> None:
        code = error.code if isinstance(error, ServiceError) else "internal_error"
        log.warning("source_interrupted", source=self._declaration.name, code=code, error=str(error))
        self._enter("waiting", error)

    def _enter(self, state: State, error: Exception | None = None) -> None:
        self._state = state
        gauges.STREAMING.labels(self._declaration.name).set(state == "streaming")
        if error is not None:
            self._error = (error.code if isinstance(error, ServiceError) else "internal_error", str(error))
        elif state == "streaming":
            self._error = ("", "")


async def _published(publisher: Publisher, writer: EnvelopeWriter) -> int:
    """Return the highest position that a control event in the stream tells, 0 without any."""
    found = [await publisher.last_control(writer.subject(CONTROL_SCHEMA, name)) for name in ("snapshot", "watermark")]
    return max((lsn for body in found if body and isinstance(lsn := body.get("lsn"), int)), default=0)


def _obey() -> None:
    """End where a cancellation was lost on the way: nats-py waits in a manner that can do so."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
