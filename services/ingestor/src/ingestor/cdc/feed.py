"""Runs the change events of all sources: stream to index, vectors, comparison, sweeping and what is told about them."""

import asyncio
import datetime as dt
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from chassis.errors import DeadlineError, InternalError, ServiceError, UnavailableError
from chassis.logging import get_logger
from chassis.messaging import Bus
from chassis.tasks import end, in_time
from contracts.subjects import CDC_PREFIX, CDC_STREAM
from ingestor.cdc import drift
from ingestor.cdc.applying import Applier
from ingestor.cdc.comparing import Comparison
from ingestor.cdc.declaration import FeedSettings
from ingestor.cdc.declared import adopt, forget_undeclared
from ingestor.cdc.drift import Drift, Mender
from ingestor.cdc.embedding import EmbeddingLane
from ingestor.cdc.freshness import CHANGES, DEAD, FRAGMENTS, POSITION
from ingestor.cdc.groups import Group, Message
from ingestor.cdc.health import Resnapshot, RowReader, SourceHealth
from ingestor.cdc.mapping import Table
from ingestor.cdc.probing import is_their_own, takes_writes
from ingestor.cdc.promises import Promises, promised
from ingestor.cdc.reading import SourceReading
from ingestor.cdc.reporting import OutboxReporter, publish
from ingestor.cdc.rows import Progress, Rows, StreamState
from ingestor.cdc.stream import StreamReader
from ingestor.cdc.sweeping import sweep
from ingestor.library import Library
from knowledge.index import Index

log = get_logger("ingestor")
_OUTBOX = 200
_SOON = 0.02
T = TypeVar("T")


async def _nobody(source: str, reason: str) -> None:
    log.error("snapshot_needed", source=source, reason=reason)


class Feed:
    """The one consumer of change events; everything that writes its ledger runs on one thread."""

    def __init__(
        self,
        tables: Sequence[Table],
        index: Index,
        library: Library,
        ledger: Path,
        bus: Bus,
        settings: FeedSettings,
        *,
        resnapshot: Resnapshot = _nobody,
        readers: Mapping[str, RowReader] | None = None,
        sending: Callable[[str], bool] = lambda _source: True,
    ) -> None:
        """Feed the collections of `tables`; `ledger` is a file, `readers` read rows by source, `sending` says whether changes arrive."""
        self._tables, self._index, self._library, self._bus, self._settings = tuple(tables), index, library, bus, settings
        self._resnapshot, self._readers = resnapshot, dict(readers or {})
        self._rows = Rows(ledger)
        self._reporter = OutboxReporter(self._rows)
        self._applier = Applier(self._tables, self._rows, library)
        self._lane = EmbeddingLane(library, ledger.with_suffix(".vectors"), settings, self._embedded)
        self._stream = StreamReader(bus)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="feed")
        mender = Mender(self._applier, self._rows, library)
        self._comparison = Comparison(index, self._rows, mender, self._on_worker, self._lane.offer)
        self._reading = SourceReading(self._rows, self._applier, self._reporter, self._on_worker, self._after, self.wait_for)
        self._state = StreamState("", 0, 0)
        self.promises = Promises(bus, ledger.with_suffix(".told"), promised(self._tables), oldest=self._oldest, sending=sending)
        self._noted, self._progress = self.promises.noted, {name: self._rows.progress(name) for name in self.promises.noted}
        self._moved, self._outbox, self._compare = asyncio.Condition(), asyncio.Event(), asyncio.Event()
        self._phase, self._caught_up, self._verified = "waiting", False, 0
        self._comparing, self._applied_before = asyncio.Lock(), 0

    async def run(self) -> None:
        """Take events in until cancelled; the bus or the index going away only pauses it."""
        self._lane.start()
        try:
            async with self._stream.listening(), asyncio.TaskGroup() as tasks:
                watch = partial(self.promises.watch, self._settings.sweep_seconds)
                loops = (self._publish, self._maintain, self._compare_again, self._read_sources, watch)
                beside = [tasks.create_task(work()) for work in loops]
                try:
                    await self._begin()
                    await self._remap()
                    await self._consume()
                finally:
                    # The group would cancel each of them once only.
                    await end(*beside)
        finally:
            self._phase = "stopped"
            await asyncio.to_thread(self._close)

    def watermarks(self) -> dict[str, int]:
        """Return the place up to which each collection is searchable."""
        return {table.collection.name: self._progress[table.source.name].position for table in self._tables}

    async def wait_for(self, collection: str, position: int, timeout_seconds: float) -> int:
        """Wait until a collection is searchable up to `position` and return how far it is; raise DeadlineError."""
        try:
            async with asyncio.timeout(timeout_seconds), self._moved:
                await self._moved.wait_for(lambda: self.watermarks().get(collection, 0) >= position)
        except TimeoutError as error:
            place = self.watermarks().get(collection, 0)
            raise DeadlineError(f"collection {collection!r} is at {place}, not yet at {position}", code="knowledge_behind") from error
        return self.watermarks()[collection]

    def status(self) -> list[SourceHealth]:
        """Return the health of every source."""
        return [self._health(name) for name in self._noted]

    async def reconcile(self, source: str = "") -> Drift:
        """Compare source and ledger by buckets, ledger and index word for word, and mend what differs; a source that is away raises."""
        total, away = Drift(), list[ServiceError]()
        async with self._comparing:
            for name in [source] if source else list(self._noted):
                tables = [table for table in self._tables if table.source.name == name]
                found, errors = await self._reading.compare(tables, self._readers.get(name))
                if name in self._readers and not errors:
                    self._noted[name].problem = ""
                for table in tables:
                    found += await self._comparison.compare(table, deep=range(drift.BUCKETS), trusted=self._caught_up)
                self.promises.note_drift(name, found)
                total, away = total + found, away + errors
        if away:
            raise away[0]
        return total

    async def settled(self, timeout_seconds: float) -> None:
        """Wait until the stream was read to its end and no text waits for its vector; raise DeadlineError."""
        try:
            async with asyncio.timeout(timeout_seconds):
                last = (await self._stream.info()).last
                while not (self._caught_up and self._state.sequence >= last and self._lane.idle()):  # noqa: ASYNC110 - for tests and drills
                    await asyncio.sleep(_SOON)
        except TimeoutError as error:
            raise DeadlineError(f"read up to {self._state.sequence}; {self._lane.pending} documents wait for vectors") from error

    async def _begin(self) -> None:
        """Find the place to go on from, and what happened to stream and ledger meanwhile."""
        while True:
            try:
                info = await self._stream.info()
                break
            except UnavailableError as error:
                log.warning("stream_unavailable", error=str(error))
                await asyncio.sleep(self._settings.retry_seconds)
        await self._on_worker(partial(forget_undeclared, self._rows, self._tables))
        known = await self._on_worker(lambda: self._rows.stream(CDC_STREAM))
        before = max(info.first - 1, 0)
        if known is None:
            holdings = await asyncio.to_thread(self._index.holdings)
            filled = [table for table in self._tables if table.collection.name in holdings]
            # The index is served as it is while the ledger is made again from the stream.
            self._state = StreamState(info.created, before, info.last if filled else 0)
            empty = [table for table in self._tables if table not in filled]
            await self._on_worker(partial(adopt, self._rows, CDC_STREAM, self._state, empty))
            if filled and (before or not info.last):
                await self._lost("the ledger is new and the stream does not hold everything that the index does")
        elif known.created != info.created or known.sequence > info.last:
            self._state = StreamState(info.created, before, 0)
            await self._on_worker(lambda: self._rows.set_stream(CDC_STREAM, self._state))
            await self._lost("the stream was made anew; changes may be missing")
        else:
            new = [table for table in self._tables if not await self._on_worker(partial(self._rows.mapping, table.source.name, table.name))]
            # What the stream holds of a table that nobody mapped before is read again; for the others it is old.
            self._state = replace(known, sequence=before) if new else known
            self._applied_before = known.sequence
        self._progress = await self._on_worker(lambda: {name: self._rows.progress(name) for name in self._noted})

    async def _remap(self) -> None:
        """Make documents anew where their mapping has changed."""
        for table in self._tables:
            where, print_ = (table.source.name, table.name), table.fingerprint
            known, after = await self._on_worker(partial(self._rows.mapping, *where)), ""
            while known and known != print_ and (rows := await self._on_worker(partial(self._rows.page, *where, after, drift.PAGE))):
                await self._after(await self._on_worker(partial(self._applier.remap, rows, self._reporter)), live=False)
                after = rows[-1].key
            if known != print_:
                await self._on_worker(partial(self._rows.set_mapping, *where, print_))

    async def _consume(self) -> None:
        woken, started = False, 0.0
        while True:
            await asyncio.sleep(max(started + self._settings.group_seconds - time.monotonic(), 0))
            try:
                messages = await self._stream.read(self._state.sequence, self._settings.group_events)
                if messages and messages[0].sequence > self._state.sequence + 1:
                    await self._check_gap()
            except UnavailableError as error:
                self._phase = "waiting"
                log.warning("stream_unavailable", error=str(error))
                await asyncio.sleep(self._settings.retry_seconds)
                continue
            if not messages:
                await self._at_end()
                # A wake-up may come before the stream has what it was for.
                woken = await self._stream.wait(_SOON if woken else self._settings.idle_seconds)
                continue
            before, started, woken = started, time.monotonic(), True
            await self._apply(messages)
            self._lane.give_way(time.monotonic() - started, started - before)

    async def _at_end(self) -> None:
        if self._state.rebuild:
            # Everything that the lost ledger knew from the stream is known again; now the index is brought to it.
            self._state = replace(self._state, rebuild=0)
            await self._on_worker(lambda: self._rows.set_stream(CDC_STREAM, self._state))
            self._caught_up = True
            self._compare.set()
        self._phase, self._caught_up = "streaming", True

    async def _check_gap(self) -> None:
        info = await self._stream.info()
        if info.first > self._state.sequence + 1:
            await self._lost(f"the stream lost its messages {self._state.sequence + 1} to {info.first - 1}")

    async def _lost(self, reason: str) -> None:
        await self._on_worker(lambda: self._rows.distrust_snapshots((table.source.name, table.name) for table in self._tables))
        for name, noted in self._noted.items():
            noted.problem = reason
            log.error("changes_lost", source=name, reason=reason)
            await self._resnapshot(name, reason)

    async def _apply(self, messages: Sequence[Message]) -> None:
        """Apply a group; an event that makes everything fail is found and given up."""
        attempt = 0
        while True:
            try:
                group = await self._on_worker(lambda: self._applier.apply(messages, CDC_STREAM, self._state, self._reporter))
                break
            except Exception as error:
                log.exception("group_failed", first=messages[0].sequence, last=messages[-1].sequence)
                attempt += await is_their_own(error, lambda: self._on_worker(partial(takes_writes, self._rows, self._index, self._library)))
                self._phase = "blocked"
                if attempt >= self._settings.attempts:
                    await self._isolate(messages, error)
                    return
                await asyncio.sleep(self._settings.retry_seconds)
        rebuilding = messages[-1].sequence <= max(self._state.rebuild, self._applied_before)
        await self._after(group, live=not rebuilding)
        self._state = replace(self._state, sequence=messages[-1].sequence)

    async def _isolate(self, messages: Sequence[Message], error: Exception) -> None:
        if len(messages) > 1:
            for message in messages:
                await self._apply([message])
            return
        fault = error if isinstance(error, ServiceError) else InternalError(repr(error))
        group = await self._on_worker(lambda: self._applier.bury(messages[0], fault, CDC_STREAM, self._state, self._reporter))
        await self._after(group)
        self._state = replace(self._state, sequence=messages[0].sequence)

    async def _after(self, group: Group, *, live: bool = True) -> None:
        """Tell everybody who waits for what a group brought."""
        self._lane.offer(group.applied.waiting, group.applied.removed)
        for name, changes in group.changes.items():
            CHANGES.labels(source=name).inc(len(changes))
            if live:
                self.promises.of[name].saw([change.committed_ms for change in changes if change.op != "r" and change.committed_ms])
        for letter in group.letters:
            DEAD.labels(source=letter.source).inc()
            log.error("event_buried", source=letter.source, subject=letter.message.subject, sequence=letter.message.sequence,
                      code=letter.error.code, error=str(letter.error))  # fmt: skip
        touched = group.changes.keys() | group.settled.keys() | {letter.source for letter in group.letters}
        self._progress |= await self._on_worker(lambda: {name: self._rows.progress(name) for name in touched & self._noted.keys()})
        for name in touched & self._noted.keys():
            POSITION.labels(source=name).set(self._progress[name].position)
        async with self._moved:
            self._moved.notify_all()
        if group.changes or group.letters:
            self._outbox.set()
        for name in group.incomplete:
            if self._noted[name].problem:
                continue
            self._noted[name].problem = "a value or a key that is needed was not sent; a new snapshot is needed"
            await self._resnapshot(name, self._noted[name].problem)
        for name, _table in group.completed:
            self._noted[name].problem = ""
            self.promises.mended(name, "slot_lost", "slot_lagging")
            self._compare.set()

    async def _publish(self) -> None:
        """Publish what the ledger notes, in order and as often as it takes."""
        while True:
            self._outbox.clear()
            entries = await self._on_worker(lambda: self._rows.outgoing(_OUTBOX))
            for first in range(0, len(entries), 20):
                some = entries[first : first + 20]
                try:
                    await asyncio.gather(*(publish(self._bus, entry) for entry in some))
                except UnavailableError as error:
                    log.warning("announcement_delayed", error=str(error))
                    await asyncio.sleep(self._settings.retry_seconds)
                    break
                await self._on_worker(partial(self._rows.sent, some[-1].place))
            if len(entries) < _OUTBOX:
                with suppress(TimeoutError):
                    await in_time(1.0, self._outbox.wait())

    async def _maintain(self) -> None:
        """Sweep, and keep gauges."""
        while True:
            await asyncio.sleep(self._settings.sweep_seconds)
            try:
                await self._on_worker(lambda: sweep(self._rows, self._library))
                for table, count in (await asyncio.to_thread(self._library.fragments)).items():
                    FRAGMENTS.labels(table=table).set(count)
            except Exception:
                log.exception("maintenance_failed")

    async def _oldest(self, source: str) -> float | None:
        if not self._state.created:
            raise UnavailableError(f"stream {CDC_STREAM} was not looked at yet")
        after = max(self._state.sequence, self._state.rebuild, self._applied_before)
        return await self._stream.sent_at(after, f"{CDC_PREFIX}.{source}.>")

    async def _compare_again(self) -> None:
        """Compare ledger and index from time to time, at once when all rows of a table became known, and one bucket word for word."""
        compared = time.monotonic()
        while True:
            with suppress(TimeoutError):
                await in_time(self._settings.verify_seconds, self._compare.wait())
            asked = self._compare.is_set()
            self._compare.clear()
            if not self._caught_up:
                continue
            whole = asked or time.monotonic() - compared >= self._settings.compare_seconds
            compared = time.monotonic() if whole else compared
            self._verified = (self._verified + 1) % drift.BUCKETS
            try:
                found = dict[str, Drift]()
                async with self._comparing:
                    for table in self._tables:
                        deep, name = range(self._verified, self._verified + 1), table.source.name
                        found[name] = found.get(name, Drift()) + await self._comparison.compare(table, deep=deep, trusted=True, whole=whole)
                for name, drifted in found.items():
                    if whole or drifted.repaired:
                        self.promises.note_drift(name, drifted)
            except Exception:
                log.exception("comparison_failed")

    async def _read_sources(self) -> None:
        while True:
            await asyncio.sleep(self._settings.source_seconds)
            for name in self._readers:
                try:
                    await self.reconcile(name)
                except Exception:
                    log.exception("comparison_failed", source=name)

    def _embedded(self, batch: Mapping[str, tuple[str, ...]]) -> None:
        """Count embedded texts for the sources of their documents; called by the lane's thread."""
        by_source: dict[str, int] = {}
        for table in self._tables:
            name = table.collection.name
            count = sum(len(texts) for key, texts in batch.items() if key.startswith(f"{name}/") or f":{name}/" in key)
            by_source[table.source.name] = by_source.get(table.source.name, 0) + count

        def note() -> None:
            with self._rows.transaction():
                for source, count in by_source.items():
                    self._rows.advance(source, Progress(embedded=count))
                    self._progress[source] = self._rows.progress(source)

        with suppress(RuntimeError):
            self._worker.submit(note)

    def _health(self, name: str) -> SourceHealth:
        progress, noted, fresh = self._progress[name], self._noted[name], self.promises.of[name]
        last = dt.datetime.fromtimestamp(progress.last_change_ms / 1000, dt.UTC) if progress.last_change_ms else None
        state = "lost" if noted.problem else self._phase
        collections = tuple(table.collection.name for table in self._tables if table.source.name == name)
        return SourceHealth(
            name, state, collections, progress.position, last, fresh.lag(), fresh.sla_seconds, fresh.holds, progress.applied,
            progress.dead, progress.embedded, self._lane.pending, noted.drift, noted.reconciled_at, noted.problem,
        )  # fmt: skip

    async def _on_worker(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)

    def _close(self) -> None:
        self._lane.stop(10)
        self._worker.shutdown(wait=True)
        self._rows.close()
