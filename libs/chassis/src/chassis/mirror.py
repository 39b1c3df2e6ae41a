"""A key-value bucket held in memory, so that the hot path makes no round trip."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

from nats.errors import Error as NatsError
from nats.js.errors import Error as JetStreamError
from nats.js.kv import KeyValue

from chassis import telemetry
from chassis.logging import get_logger
from chassis.messaging import Bus

log = get_logger("mirror")
T = TypeVar("T")
_RETRY_SECONDS = 0.5
_POLL_SECONDS = 1.0


class Mirror(Generic[T]):
    """Follows one bucket; what cannot be decoded counts as absent."""

    def __init__(self, bus: Bus, bucket: str, decode: Callable[[str, bytes], T], *, refresh_seconds: float) -> None:
        """Bind the bucket; nothing is read before `run`."""
        self._bus, self._bucket, self._decode, self._refresh = bus, bucket, decode, refresh_seconds
        self.entries: dict[str, T] = {}
        self.synced = asyncio.Event()
        # Called after each change.
        self.listeners: set[Callable[[], None]] = set()

    async def run(self) -> None:
        """Follow the bucket for ever; a watch is renewed now and then, because a lost one is silent."""
        while True:
            try:
                await self._follow()
            except (TimeoutError, NatsError, JetStreamError) as error:
                log.warning("mirror_interrupted", bucket=self._bucket, error=repr(error))
                await asyncio.sleep(_RETRY_SECONDS)

    async def _follow(self) -> None:
        bucket = await self._bus.js.key_value(self._bucket)
        watcher: Any = await bucket.watchall()
        loop = asyncio.get_running_loop()
        until, fresh, listing = loop.time() + self._refresh, dict[str, T](), True
        reconnects = self._bus.client.stats["reconnects"]
        try:
            while (left := until - loop.time()) > 0 and self._bus.client.stats["reconnects"] == reconnects:
                try:
                    entry = await watcher.updates(timeout=min(left, _POLL_SECONDS))
                except (TimeoutError, NatsError):
                    continue
                if entry is None:
                    self.entries, listing = fresh, False
                    self.synced.set()
                    telemetry.MIRROR_SYNCED.labels(bucket=self._bucket).set(1)
                else:
                    self._apply(fresh, entry)
                if not listing:
                    self._tell()
            if listing:
                raise TimeoutError("the bucket could not be listed")
        finally:
            with suppress(NatsError, JetStreamError):
                await watcher.stop()

    def _tell(self) -> None:
        for listener in tuple(self.listeners):
            listener()

    def _apply(self, into: dict[str, T], entry: KeyValue.Entry) -> None:
        if entry.operation is not None or entry.value is None:
            into.pop(entry.key, None)
            return
        try:
            into[entry.key] = self._decode(entry.key, entry.value)
        except (ValueError, KeyError, TypeError) as error:
            into.pop(entry.key, None)
            log.warning("mirror_entry_ignored", bucket=self._bucket, key=entry.key, error=str(error))
