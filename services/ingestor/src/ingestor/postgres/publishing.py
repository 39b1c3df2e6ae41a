"""Events into the stream, many on their way at once, in order or not at all."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError

from chassis.errors import ServiceError, UnavailableError
from chassis.logging import get_logger
from contracts.subjects import CDC_STREAM, dead
from ingestor.postgres.envelopes import Event

Connect = Callable[[], Awaitable[Client]]
log = get_logger("ingestor.postgres")
_WATCH_SECONDS = 0.2
# Subject, headers and protocol travel inside the limit of the body too.
_FRAME_BYTES = 2048


class Publisher:
    """Publishes over one connection until the first thing goes wrong; then everything after it fails.

    The connection must not mend itself: what it had buffered would arrive without what it had lost before, and out of order.
    """

    def __init__(self, connect: Connect, *, window_events: int, window_bytes: int, ack_timeout_seconds: float) -> None:
        """Bind what connects; nothing is sent before `open`."""
        self._connect = connect
        self._window_events, self._window_bytes, self._ack_timeout = window_events, window_bytes, ack_timeout_seconds
        self._client: Client | None = None
        self._subscription: Subscription | None = None
        self._watch: asyncio.Task[None] | None = None
        self._inbox, self._largest = "", 0
        self._sizes: dict[int, int] = {}
        self._bytes = 0
        self._heard = 0.0
        self._moved = asyncio.Event()
        self.failure: asyncio.Future[ServiceError] = asyncio.get_running_loop().create_future()
        self.last = 0
        self.acked = 0
        self.refused = 0

    async def open(self) -> None:
        """Connect; raise UnavailableError where nobody answers."""
        try:
            self._client = await self._connect()
            self._largest = self._client.max_payload - _FRAME_BYTES
            self._inbox = self._client.new_inbox()
            self._subscription = await self._client.subscribe(f"{self._inbox}.*", cb=self._acknowledged)
        except (NatsError, OSError, TimeoutError) as error:
            raise UnavailableError(f"the bus cannot be reached: {error!r}") from error
        self._watch = asyncio.create_task(self._watch_connection())

    async def close(self) -> None:
        """Leave at once; what has no acknowledgement counts as not sent."""
        if self._watch is not None:
            self._watch.cancel()
        if self._client is not None:
            with suppress(NatsError, OSError, TimeoutError):
                await self._client.close()

    async def publish(self, event: Event) -> int:
        """Send an event as soon as the window has room; return its number, which `acked` reaches when it is stored."""
        body = event.body
        if len(body) > self._largest:
            body = await self._refuse(event)
        return await self._send(event.subject, body, {"Nats-Msg-Id": event.message_id, "Nats-Expected-Stream": CDC_STREAM})

    async def _refuse(self, event: Event) -> bytes:
        """Write the dead letter of an event that is too large; return what stands in for it."""
        code = "cdc_event_too_large"
        text = f"{event.subject} {event.message_id}: {len(event.body)} bytes, and the bus takes {self._largest}"
        log.error("cdc_event_refused", code=code, error=text)
        self.refused += 1
        headers = {"strata-error-code": code, "strata-error": text, "strata-subject": event.subject}
        await self._send(dead(CDC_STREAM), event.without_row, {"Nats-Msg-Id": f"dead/CDC/{event.message_id}", **headers})
        return event.without_row

    async def _send(self, subject: str, body: bytes, headers: dict[str, str]) -> int:
        while len(self._sizes) >= self._window_events or (self._sizes and self._bytes + len(body) > self._window_bytes):
            await self._next_move()
        if self.failure.done():
            raise self.failure.result()
        assert self._client is not None  # noqa: S101 - nothing is sent before open
        if not self._sizes:
            self._heard = time.monotonic()
        self.last += 1
        self._sizes[self.last] = len(body)
        self._bytes += len(body)
        number = self.last
        try:
            await self._client.publish(subject, body, reply=f"{self._inbox}.{number}", headers=headers)
        except (NatsError, OSError) as error:
            self._fail(f"the bus did not take {subject!r}: {error!r}")
            raise self.failure.result() from error
        return number

    async def settled(self) -> None:
        """Wait until everything sent is stored; raise UnavailableError when it will not be."""
        while self._sizes:
            await self._next_move()
        if self.failure.done():
            raise self.failure.result()

    async def _next_move(self) -> None:
        if self.failure.done():
            raise self.failure.result()
        self._moved.clear()
        await self._moved.wait()

    @property
    def outstanding(self) -> int:
        """Events on their way."""
        return len(self._sizes)

    async def last_control(self, subject: str) -> dict[str, object] | None:
        """Return the newest event on a subject of the stream, or None."""
        assert self._client is not None  # noqa: S101 - nothing is asked before open
        js = self._client.jetstream(timeout=self._ack_timeout)
        try:
            message = await js.get_last_msg(CDC_STREAM, subject)
            content: object = json.loads(message.data or b"null")
        except (NotFoundError, ValueError):
            return None
        except (NatsError, TimeoutError, OSError) as error:
            raise UnavailableError(f"the bus does not say what it holds: {error!r}") from error
        return content if isinstance(content, dict) else None

    async def _acknowledged(self, message: Msg) -> None:
        if (message.headers or {}).get("Status") or b'"error"' in message.data:
            self._fail(f"the stream did not take an event: {message.data.decode(errors='replace') or 'nobody listens'}")
            return
        number = int(message.subject.rpartition(".")[2])
        self._bytes -= self._sizes.pop(number, 0)
        self._heard = time.monotonic()
        # The dictionary keeps the order of sending, so its first key is the oldest without an acknowledgement.
        self.acked = next(iter(self._sizes)) - 1 if self._sizes else self.last
        self._moved.set()

    def _fail(self, text: str) -> None:
        if not self.failure.done():
            self.failure.set_result(UnavailableError(text))
        self._moved.set()

    async def _watch_connection(self) -> None:
        while not self.failure.done():
            await asyncio.sleep(_WATCH_SECONDS)
            if self._client is None or not self._client.is_connected:
                self._fail("the bus went away")
            elif self._sizes and time.monotonic() - self._heard > self._ack_timeout:
                self._fail(f"the stream acknowledged nothing for {self._ack_timeout:.0f} s")
