"""Looks after the queue while nobody does: missed deadlines, and facts that a crash kept from the bus."""

import asyncio
import time
from collections import Counter
from datetime import UTC, datetime

from chassis.errors import NotFoundError
from chassis.logging import get_logger
from chassis.messaging import Bus
from review import metrics
from review.board import Board
from review.publishing import settle
from review.reviewing import SEVERITIES, miss_deadline
from review.settings import Settings
from review.store import Store
from strata.review.v1.review_events_pb2 import ReviewItem

log = get_logger("sweeping")
# So many in a row that cannot be looked after mean that the bus is away; then the others wait for the next sweep.
_MOST_FAILED = 3


class Sweeper:
    """Sweeps the board at an interval; several instances do no harm to each other."""

    def __init__(self, bus: Bus, board: Board, store: Store, settings: Settings) -> None:
        """Bind the queue."""
        self._bus, self._board, self._store, self._settings = bus, board, store, settings
        self._failed: set[str] = set()

    async def run(self) -> None:
        """Sweep for ever; what goes wrong is tried again at the next sweep."""
        await self._board.synced.wait()
        while True:
            await self.sweep()
            await asyncio.sleep(self._settings.sweep_seconds)

    async def sweep(self) -> None:
        """Do what is due now; what failed the last time comes last, so that nothing waits for one review that cannot be looked after."""
        now = datetime.now(UTC)
        items = self._board.items()
        self._measure([item for _, item in items], now)
        before, self._failed = self._failed, set()
        in_a_row = 0
        for key, _ in sorted((row for row in items if self._is_due(row[1], now)), key=lambda row: row[0] in before):
            try:
                newest = await self._store.change(key, lambda found: self._miss(found, now))
                await settle(self._bus, self._store, newest)
            except NotFoundError:
                # It has expired since the board was read.
                continue
            except Exception as error:  # noqa: BLE001 - the alarms of all others depend on this loop
                log.warning("review_not_swept", review=key, error=repr(error))
                self._failed.add(key)
                in_a_row += 1
                if in_a_row >= _MOST_FAILED:
                    return
            else:
                in_a_row = 0

    def _is_due(self, item: ReviewItem, now: datetime) -> bool:
        late = item.status == "open" and item.deadline.ToDatetime(UTC) <= now and item.missed_deadlines < self._settings.missed_deadlines
        return late or bool(item.unpublished)

    def _miss(self, item: ReviewItem, now: datetime) -> None:
        if miss_deadline(item, now, self._settings):
            metrics.MISSED.labels(severity=item.severity).inc()
            log.warning("deadline_missed", request_id=item.request_id, severity=item.severity, missed=item.missed_deadlines)

    def _measure(self, items: list[ReviewItem], now: datetime) -> None:
        waiting = [item for item in items if item.status == "open"]
        by_severity = Counter(item.severity for item in waiting)
        for severity in SEVERITIES:
            metrics.OPEN.labels(severity=severity).set(by_severity[severity])
        metrics.OVERDUE.set(sum(item.missed_deadlines > 0 or item.deadline.ToDatetime(UTC) <= now for item in waiting))
        oldest = min((item.escalated_at.ToMilliseconds() / 1000 for item in waiting), default=time.time())
        metrics.OLDEST.set(max(0.0, time.time() - oldest))
        metrics.UNPUBLISHED.set(sum(len(item.unpublished) for item in items))
