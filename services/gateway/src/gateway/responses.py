"""Waits for the windows of one request: live from the bus, and from the stream what was missed."""

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterator, Mapping

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError

from chassis.errors import UnavailableError
from chassis.logging import get_logger
from chassis.messaging import Bus
from chassis.stops import Stops
from contracts.releases import ReleaseInvalidError
from contracts.subjects import RESPONSE
from gateway.assembly import Assembly, Window
from gateway.audit_trail import AuditTrail
from gateway.metrics import REFUSED_RELEASES, REPLAYS
from gateway.refusals import RefusedError

log = get_logger("responses")
# A flood of forgeries must not become a flood of records.
_MAX_RECORDED = 5
_MAX_REASON = 200


class ClientGoneError(Exception):
    """Nobody reads the answer any more."""


class Waiting:
    """One request that waits for its answer."""

    def __init__(
        self,
        bus: Bus,
        trail: AuditTrail,
        assembly: Assembly,
        stops: Stops,
        *,
        tenant: str,
        request_id: str,
        deadline: float,
        replay_after: float,
        stoppable: Mapping[str, str] | None = None,
    ) -> None:
        """Bind a request; `deadline` is a time of the running loop in seconds, `stoppable` what a stop may name of it, by kind."""
        self._bus, self._trail, self._assembly, self._stops = bus, trail, assembly, stops
        self._stoppable = {"tenant": tenant, **(stoppable or {})}
        self._tenant, self._request_id = tenant, request_id
        self._subject = RESPONSE.at(tenant=tenant, request_id=request_id)
        self._deadline, self._replay_after = deadline, replay_after
        self._items: deque[bytes] = deque()
        self._wake: asyncio.Future[None] | None = None
        self._subscription: Subscription | None = None
        self._reconnects = bus.client.stats["reconnects"]
        self._gone = False
        self._refused = 0
        self._asked_last = False

    async def open(self) -> None:
        """Subscribe; what is published afterwards is not missed. Raise UnavailableError without a bus."""
        try:
            self._subscription = await self._bus.client.subscribe(self._subject, cb=self._arrived)
        except NatsError as error:
            raise UnavailableError(f"cannot subscribe: {error!r}") from error
        self._stops.mirror.listeners.add(self._rouse)

    async def close(self) -> None:
        """Stop listening; safe to repeat."""
        self._stops.mirror.listeners.discard(self._rouse)
        subscription, self._subscription = self._subscription, None
        if subscription is not None and not self._bus.client.is_closed:
            try:
                await subscription.unsubscribe()
            except NatsError as error:
                log.info("unsubscribe_failed", error=repr(error))

    async def _arrived(self, message: Msg) -> None:
        self._items.append(message.data)
        self._rouse()

    @property
    def is_gone(self) -> bool:
        """Whether the client has left."""
        return self._gone

    def client_gone(self) -> None:
        """End the wait: nobody reads the answer."""
        self._gone = True
        self._rouse()

    def _rouse(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def next(self, patience: float) -> list[Window]:
        """Return the next windows, or none after `patience` seconds.

        Raises RefusedError for the error that ended the request or its deadline, ClientGoneError when nobody reads.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + patience
        while True:
            if self._gone:
                raise ClientGoneError
            if self._stops.find(**self._stoppable) is not None:
                raise RefusedError("stopped")
            if windows := self._take_all():
                return windows
            if self._assembly.error_code:
                raise RefusedError(self._assembly.error_code)
            now = loop.time()
            if now >= self._deadline:
                if self._asked_last:
                    raise RefusedError("deadline_exceeded")
                self._asked_last = True
                await self.replay()
            elif now >= until:
                return []
            else:
                await self._sleep(min(until, self._deadline, now + self._replay_after) - now)

    def _take_all(self) -> list[Window]:
        windows: list[Window] = []
        while self._items and not self._assembly.error_code:
            data = self._items.popleft()
            try:
                windows += self._assembly.take(data)
            except ReleaseInvalidError as error:
                self._refuse(data, str(error))
        return windows

    async def _sleep(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._wake = wake = loop.create_future()
        timer = loop.call_later(seconds, self._rouse)
        await wake
        timer.cancel()
        if not self._items and (self._assembly.has_gap or self._reconnects != self._bus.client.stats["reconnects"]):
            self._reconnects = self._bus.client.stats["reconnects"]
            await self.replay()

    async def replay(self) -> None:
        """Take from the stream what is there already; duplicates do no harm."""
        REPLAYS.inc()
        try:
            async for data in stored(self._bus, self._subject):
                self._items.append(data)
        except (TimeoutError, NatsError) as error:
            log.warning("replay_failed", request_id=self._request_id, error=repr(error))

    @property
    def has_something(self) -> bool:
        """Whether a response has arrived that nobody has taken yet."""
        return bool(self._items)

    def _refuse(self, data: bytes, reason: str) -> None:
        reason = reason[:_MAX_REASON]
        REFUSED_RELEASES.labels(reason=reason.split(" '", maxsplit=1)[0]).inc()
        log.warning("release_refused", request_id=self._request_id, tenant=self._tenant, reason=reason)
        self._refused += 1
        if self._refused > _MAX_RECORDED:
            return
        digest = hashlib.sha256(data).hexdigest()
        self._trail.later(
            self._trail.record(
                "response",
                "rejected",
                record_id=f"{self._request_id}/refused/{digest[:32]}",
                tenant=self._tenant,
                request_id=self._request_id,
                trace_id=self._assembly.trace_id,
                code="release_invalid",
                details={"reason": reason, "response_sha256": digest},
            )
        )


async def stored(bus: Bus, subject: str) -> AsyncIterator[bytes]:
    """Yield what the stream holds for one request, oldest first."""
    sequence = 1
    while True:
        try:
            message = await bus.js.get_msg(RESPONSE.stream, seq=sequence, subject=subject, direct=True, next=True)
        except NotFoundError:
            return
        yield message.data or b""
        sequence = (message.seq or sequence) + 1
