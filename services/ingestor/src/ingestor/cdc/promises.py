"""Watches what is promised of every source, and tells when a promise ceases to hold or holds again."""

import asyncio
import datetime as dt
import json
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from chassis.errors import UnavailableError
from chassis.logging import get_logger
from chassis.messaging import Bus
from chassis.tasks import in_time
from ingestor.cdc.drift import Drift
from ingestor.cdc.freshness import DRIFT, Freshness
from ingestor.cdc.health import Noted
from ingestor.cdc.mapping import Table
from ingestor.cdc.reporting import announce_freshness

log = get_logger("ingestor")


class Promises:
    """The freshness of every source, and what was told of it last, which survives a restart."""

    def __init__(
        self,
        bus: Bus,
        told: Path,
        promised: Mapping[str, float],
        *,
        oldest: Callable[[str], Awaitable[float | None]],
        sending: Callable[[str], bool],
    ) -> None:
        """Publish on `bus` and note in `told` what was; `promised` are seconds from commit to searchable by source, 0 for none.

        `oldest` returns when the first event of a source that is not applied was sent, None where all are, and raises
        UnavailableError; `sending` tells whether the changes of a source arrive, as far as somebody knows.
        """
        self.of = {name: Freshness(name, seconds) for name, seconds in promised.items()}
        self.noted = {name: Noted() for name in promised}
        self._bus, self._file, self._told, self._oldest, self._sending = bus, told, _read(told), oldest, sending
        self._look, self._loop = asyncio.Event(), asyncio.get_running_loop()

    def broken(self, source: str, reason: str, detail: str) -> None:
        """Note that a promise is broken by something that was found, until `mended`; any thread may say so."""
        self.of[source].found[reason] = detail
        self._loop.call_soon_threadsafe(self._look.set)

    def mended(self, source: str, *reasons: str) -> None:
        """Note that what was found is over."""
        for reason in reasons:
            if self.of[source].found.pop(reason, None) is not None:
                self._look.set()

    def note_drift(self, source: str, found: Drift) -> None:
        """Note what a comparison found; drift breaks the promise until a comparison finds none."""
        noted = self.noted[source]
        noted.drift, noted.reconciled_at = found, dt.datetime.now(dt.UTC)
        for kind in ("missing", "surplus", "stale"):
            DRIFT.labels(source=source, kind=kind).set(getattr(found, kind))
        if not found.repaired:
            self.mended(source, "drift")
            return
        self.broken(source, "drift", f"{found.missing} missing, {found.surplus} surplus, {found.stale} stale; mended")
        log.warning("drift_mended", source=source, missing=found.missing, surplus=found.surplus, stale=found.stale,
                    embedded=found.embedded, buckets=found.differing)  # fmt: skip

    async def watch(self, seconds: float) -> None:
        """Judge every promise that often, and at once when something was found, until cancelled."""
        while True:
            with suppress(TimeoutError):
                await in_time(seconds, self._look.wait())
            self._look.clear()
            for fresh in self.of.values():
                try:
                    await self._judge(fresh)
                except UnavailableError as error:
                    # It is judged, and told as soon as the bus takes it.
                    log.warning("signal_not_published", source=fresh.source, reason=fresh.reason, error=str(error))
                except Exception:
                    log.exception("promise_not_judged", source=fresh.source)

    async def _judge(self, fresh: Freshness) -> None:
        name = fresh.source
        try:
            oldest, read = await self._oldest(name), self._sending(name)
        except UnavailableError:
            oldest, read = None, False
        fresh.judge(oldest, self.noted[name].problem, read=read)
        if self._told.get(name, "") == fresh.reason:
            return
        if not fresh.holds:
            # A process that ends before it was told says too often that the promise holds again, and never too rarely.
            await asyncio.to_thread(self._write, self._told | {name: fresh.reason})
        await announce_freshness(self._bus, fresh)
        self._told[name] = fresh.reason
        await asyncio.to_thread(self._write, self._told)

    def _write(self, told: Mapping[str, str]) -> None:
        temporary = self._file.with_suffix(".tmp")
        temporary.write_text(json.dumps(told))
        temporary.replace(self._file)


def _read(file: Path) -> dict[str, str]:
    """Return what was told last; a file that is not there or broken says nothing."""
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return {str(name): str(reason) for name, reason in content.items()} if isinstance(content, dict) else {}


def promised(tables: Iterable[Table]) -> dict[str, float]:
    """Return the strictest promise of each source's tables in seconds, 0 where there is none; names are in order."""
    found: dict[str, float] = {}
    for name, seconds in sorted((table.source.name, table.sla_seconds or math.inf) for table in tables):
        found.setdefault(name, seconds if seconds < math.inf else 0.0)
    return found
