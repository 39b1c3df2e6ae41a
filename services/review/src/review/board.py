"""The whole queue in memory, so that lists, deadlines and agreement cost no round trip."""

import asyncio
from contextlib import suppress
from typing import Any

from google.protobuf.message import DecodeError
from nats.errors import Error as NatsError
from nats.js.errors import Error as JetStreamError

from chassis.logging import get_logger
from chassis.messaging import Bus
from contracts.streams import REVIEWS
from strata.review.v1.review_events_pb2 import ReviewItem

log = get_logger("board")
_RETRY_SECONDS = 0.5
_POLL_SECONDS = 1.0


def summary(item: ReviewItem) -> ReviewItem:
    """Return a copy without what only a reader of this one review needs."""
    short = ReviewItem()
    short.CopyFrom(item)
    short.ClearField("messages")
    short.ClearField("vault")
    short.ClearField("draft")
    short.ClearField("text")
    return short


class Board:
    """Follows the bucket of reviews."""

    def __init__(self, bus: Bus, *, refresh_seconds: float) -> None:
        """Bind the bucket; nothing is read before `run`."""
        self._bus, self._refresh = bus, refresh_seconds
        self._items: dict[str, tuple[ReviewItem, int]] = {}
        self.synced = asyncio.Event()

    def items(self) -> list[tuple[str, ReviewItem]]:
        """Return every review by key, without conversations."""
        return [(key, item) for key, (item, _) in self._items.items()]

    def put(self, key: str, item: ReviewItem, revision: int) -> None:
        """Note what was written, unless something newer is known."""
        known = self._items.get(key)
        if known is None or known[1] <= revision:
            self._items[key] = (summary(item), revision)

    async def run(self) -> None:
        """Follow the bucket for ever; a watch is renewed now and then, because a lost one is silent."""
        while True:
            try:
                await self._follow()
            except (TimeoutError, NatsError, JetStreamError) as error:
                log.warning("board_interrupted", error=repr(error))
                await asyncio.sleep(_RETRY_SECONDS)

    async def _follow(self) -> None:
        bucket = await self._bus.js.key_value(REVIEWS)
        watcher: Any = await bucket.watchall()
        loop = asyncio.get_running_loop()
        until, listed, listing = loop.time() + self._refresh, set[str](), True
        reconnects = self._bus.client.stats["reconnects"]
        known = set(self._items)
        try:
            while (left := until - loop.time()) > 0 and self._bus.client.stats["reconnects"] == reconnects:
                try:
                    entry = await watcher.updates(timeout=min(left, _POLL_SECONDS))
                except (TimeoutError, NatsError):
                    continue
                if entry is None:
                    # What was there before and is not listed has expired.
                    for key in known - listed:
                        self._items.pop(key, None)
                    listing = False
                    self.synced.set()
                    continue
                listed.add(entry.key)
                self._apply(entry)
            if listing:
                raise TimeoutError("the bucket could not be listed")
        finally:
            with suppress(NatsError, JetStreamError):
                await watcher.stop()

    def _apply(self, entry: Any) -> None:
        if entry.operation is not None or entry.value is None:
            self._items.pop(entry.key, None)
            return
        try:
            self.put(entry.key, ReviewItem.FromString(entry.value), entry.revision)
        except DecodeError as error:
            log.warning("review_unreadable", key=entry.key, error=str(error))
