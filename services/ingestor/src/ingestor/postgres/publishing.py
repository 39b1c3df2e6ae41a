"""Events into the stream, in order or not at all, several stored at once."""

import asyncio
import json
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError

from chassis.errors import ServiceError, UnavailableError
from chassis.logging import get_logger
from chassis.tasks import end
from contracts.subjects import CDC_STREAM, dead
from ingestor.postgres.envelopes import Event

Connect = Callable[[], Awaitable[Client]]
log = get_logger("ingestor.postgres")
_WATCH_SECONDS = 0.2
# Subject, headers and protocol travel inside the limit of the body too.
_FRAME_BYTES = 2048
# The server takes a thousand; beyond this one sync to disk is no longer what costs.
_BATCH_EVENTS = 256
_BATCH_BYTES = 4 * 1024 * 1024
# A batch costs the server some 2 ms however few events it has, so that busy sources send no more than forty a second.
_PACE_SECONDS = 0.025
# What the server answers to a batch of which it has an event already.
_REPEATED = 10201


@dataclass(frozen=True, slots=True)
class _Outgoing:
    """An event in the queue; `stream` is where it must end."""

    number: int
    subject: str
    body: bytes
    message_id: str
    stream: str
    extra: dict[str, str]

    def headers(self) -> dict[str, str]:
        return {"Nats-Msg-Id": self.message_id, "Nats-Expected-Stream": self.stream, **self.extra}


class Publisher:
    """Publishes over one connection until the first thing goes wrong; then everything after it fails.

    The connection must not mend itself: what it had buffered would arrive without what it had lost before, and out of order. What
    waits is stored as one batch, whole or not at all, and the next batch starts when the stream has it: so what is stored is always
    a beginning of what was sent, and one sync to disk serves many events.
    """

    def __init__(self, connect: Connect, *, window_events: int, window_bytes: int, ack_timeout_seconds: float) -> None:
        """Bind what connects; nothing is sent before `open`."""
        self._connect = connect
        self._window_events, self._window_bytes, self._ack_timeout = window_events, window_bytes, ack_timeout_seconds
        self._client: Client | None = None
        self._works: list[asyncio.Task[None]] = []
        self._inbox, self._largest, self._batches = "", 0, False
        self._queue: deque[_Outgoing] = deque()
        self._bytes, self._tokens = 0, 0
        self._replies: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._filled, self._moved = asyncio.Event(), asyncio.Event()
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
            await self._client.subscribe(f"{self._inbox}.*", cb=self._answered)
            info = await self._client.jetstream(timeout=self._ack_timeout).stream_info(CDC_STREAM)
        except (NatsError, OSError, TimeoutError) as error:
            raise UnavailableError(f"the bus cannot be reached: {error!r}") from error
        self._batches = bool(info.config.allow_atomic)
        self._works = [asyncio.create_task(self._watch_connection()), asyncio.create_task(self._send_all())]

    async def close(self) -> None:
        """Leave at once; what has no acknowledgement counts as not sent."""
        await end(*self._works)
        if self._client is not None:
            with suppress(NatsError, OSError, TimeoutError):
                await self._client.close()

    async def publish(self, event: Event) -> int:
        """Queue an event as soon as the window has room; return its number, which `acked` reaches when it is stored."""
        body = event.body
        if len(body) > self._largest:
            body = await self._refuse(event)
        return await self._put(event.subject, body, event.message_id, CDC_STREAM, {})

    async def _refuse(self, event: Event) -> bytes:
        """Write the dead letter of an event that is too large; return what stands in for it."""
        code = "cdc_event_too_large"
        text = f"{event.subject} {event.message_id}: {len(event.body)} bytes, and the bus takes {self._largest}"
        log.error("cdc_event_refused", code=code, error=text)
        self.refused += 1
        headers = {"strata-error-code": code, "strata-error": text, "strata-subject": event.subject}
        await self._put(dead(CDC_STREAM), event.without_row, f"dead/{CDC_STREAM}/{event.message_id}", "DEAD", headers)
        return event.without_row

    async def _put(self, subject: str, body: bytes, message_id: str, stream: str, extra: dict[str, str]) -> int:
        while self.outstanding and (self.outstanding >= self._window_events or self._bytes + len(body) > self._window_bytes):
            await self._next_move()
        if self.failure.done():
            raise self.failure.result()
        self.last += 1
        self._bytes += len(body)
        self._queue.append(_Outgoing(self.last, subject, body, message_id, stream, extra))
        self._filled.set()
        return self.last

    async def settled(self) -> None:
        """Wait until everything sent is stored; raise UnavailableError when it will not be."""
        while self.outstanding:
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
        """Events that the stream has not acknowledged."""
        return self.last - self.acked

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

    async def _send_all(self) -> None:
        """Send what is queued, a batch at a time."""
        begun = 0.0
        try:
            while True:
                if not self._queue:
                    self._filled.clear()
                    await self._filled.wait()
                if self._batches and len(self._queue) < _BATCH_EVENTS and (pause := begun + _PACE_SECONDS - time.monotonic()) > 0:
                    await asyncio.sleep(pause)
                begun = time.monotonic()
                batch = self._take()
                await self._store(batch)
                self._bytes -= sum(len(event.body) for event in batch)
                self.acked = batch[-1].number
                self._moved.set()
        except ServiceError as error:
            self._fail(error)
        except (NatsError, OSError, TimeoutError) as error:
            self._fail(UnavailableError(f"the stream did not take an event: {error!r}"))

    def _take(self) -> list[_Outgoing]:
        """Return the next events that may be stored together: of one stream, and bounded."""
        batch, size = [self._queue.popleft()], 0
        while self._batches and self._queue and len(batch) < _BATCH_EVENTS and self._queue[0].stream == batch[0].stream == CDC_STREAM:
            size += len(self._queue[0].body)
            if size > _BATCH_BYTES:
                break
            batch.append(self._queue.popleft())
        while not self._batches and self._queue and len(batch) < _BATCH_EVENTS:
            batch.append(self._queue.popleft())
        return batch

    async def _store(self, batch: Sequence[_Outgoing]) -> None:
        if self._batches and len(batch) > 1:
            answer = await self._store_together(batch)
            if answer is None:
                return
            if answer.get("err_code") != _REPEATED:
                raise UnavailableError(f"the stream did not take a batch: {answer}")
        # After a restart some are there already, and only one by one does the stream say which.
        answers = await asyncio.gather(*[await self._send(event, event.headers()) for event in batch])
        if wrong := [answer["error"] for answer in answers if "error" in answer]:
            raise UnavailableError(f"the stream did not take an event: {wrong[0]}")

    async def _store_together(self, batch: Sequence[_Outgoing]) -> dict[str, Any] | None:
        """Store all or none; return None, or the stream's error."""
        assert self._client is not None  # noqa: S101 - nothing is sent before open
        self._tokens += 1
        # The name must be nobody else's, and an inbox is ours alone.
        name = f"{self._inbox.rpartition('.')[2]}-{self._tokens}"
        for place, event in enumerate(batch[:-1], start=1):
            headers = {**event.headers(), "Nats-Batch-Id": name, "Nats-Batch-Sequence": str(place)}
            await self._client.publish(event.subject, event.body, headers=headers)
        commit = {"Nats-Batch-Id": name, "Nats-Batch-Sequence": str(len(batch)), "Nats-Batch-Commit": "1"}
        answer = await (await self._send(batch[-1], {**batch[-1].headers(), **commit}))
        error: dict[str, Any] | None = answer.get("error")
        return error

    async def _send(self, event: _Outgoing, headers: dict[str, str]) -> Awaitable[dict[str, Any]]:
        """Send one message; return what waits for the stream's answer to it."""
        assert self._client is not None  # noqa: S101 - nothing is sent before open
        self._tokens += 1
        reply = f"{self._inbox}.{self._tokens}"
        future = self._replies[reply] = asyncio.get_running_loop().create_future()
        await self._client.publish(event.subject, event.body, reply=reply, headers=headers)
        return self._answer(future)

    async def _answer(self, future: asyncio.Future[dict[str, Any]]) -> dict[str, Any]:
        async with asyncio.timeout(self._ack_timeout):
            return await future

    async def _answered(self, message: Msg) -> None:
        future = self._replies.pop(message.subject, None)
        if future is None or future.done():
            return
        if status := (message.headers or {}).get("Status"):
            future.set_result({"error": {"description": f"nobody listens ({status})"}})
            return
        try:
            answer = json.loads(message.data)
        except ValueError:
            answer = None
        future.set_result(answer if isinstance(answer, dict) else {"error": {"description": "an answer that is none"}})

    def _fail(self, error: ServiceError) -> None:
        if not self.failure.done():
            self.failure.set_result(error)
        self._moved.set()

    async def _watch_connection(self) -> None:
        while not self.failure.done():
            await asyncio.sleep(_WATCH_SECONDS)
            if self._client is None or not self._client.is_connected:
                self._fail(UnavailableError("the bus went away"))
