"""Reads the stream of change events from any place on, without a consumer on the server that could forget where it was."""

import asyncio
import datetime as dt
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.errors import APIError, NoStreamResponseError

from chassis.errors import InternalError, UnavailableError
from chassis.messaging import Bus
from contracts.subjects import CDC_PATTERN, CDC_STREAM
from ingestor.cdc.groups import Message

_END, _NOTHING = "204", "404"
_OWN_HEADERS = frozenset({"Nats-Stream", "Nats-Subject", "Nats-Sequence", "Nats-Time-Stamp", "Nats-Num-Pending", "Nats-Last-Sequence"})
_BYTES_AT_ONCE = 8 * 1024 * 1024


@dataclass(frozen=True)
class StreamInfo:
    """What the server says of the stream; `created` tells one from another of the same name."""

    created: str
    first: int
    last: int


class StreamReader:
    """Batches of messages by sequence, and a wake-up when something was published."""

    def __init__(self, bus: Bus) -> None:
        """Read over `bus`."""
        self._bus = bus
        self._wake = asyncio.Event()
        self._inbox, self._requests = "", 0
        self._arrived: asyncio.Queue[Msg] = asyncio.Queue()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Listen for answers and wake-ups inside the block."""
        self._inbox = self._bus.client.new_inbox()
        answers = await self._bus.client.subscribe(f"{self._inbox}.*", cb=self._arrived.put)
        wakes = await self._bus.client.subscribe(CDC_PATTERN, cb=self._woken)
        try:
            yield
        finally:
            for subscription in (answers, wakes):
                if not self._bus.client.is_closed:
                    await subscription.unsubscribe()

    async def info(self) -> StreamInfo:
        """Return the state of the stream; raise UnavailableError when the server does not answer."""
        try:
            answer = await self._bus.client.request(f"$JS.API.STREAM.INFO.{CDC_STREAM}", b"", timeout=self._bus.timeout_seconds)
        except (TimeoutError, NatsError) as error:
            raise UnavailableError(f"the bus does not tell of stream {CDC_STREAM}: {error!r}") from error
        body = json.loads(answer.data)
        if "error" in body:
            raise UnavailableError(f"stream {CDC_STREAM}: {body['error'].get('description')}")
        return StreamInfo(body["created"], int(body["state"]["first_seq"]), int(body["state"]["last_seq"]))

    async def read(self, after: int, limit: int) -> list[Message]:
        """Return up to `limit` messages behind sequence `after`, oldest first; raise UnavailableError when the server does not answer."""
        self._requests += 1
        reply = f"{self._inbox}.{self._requests}"
        request = {"seq": after + 1, "batch": limit, "max_bytes": _BYTES_AT_ONCE, "next_by_subj": CDC_PATTERN}
        self._wake.clear()
        try:
            await self._bus.client.publish(f"$JS.API.DIRECT.GET.{CDC_STREAM}", json.dumps(request).encode(), reply=reply)
            return await self._collected(reply, limit)
        except (TimeoutError, NatsError, APIError, NoStreamResponseError) as error:
            raise UnavailableError(f"the bus does not hand out stream {CDC_STREAM}: {error!r}") from error

    async def sent_at(self, after: int, subjects: str) -> float | None:
        """Return when the first message behind `after` on some subjects was sent, in seconds since 1970; None where there is none."""
        request = json.dumps({"seq": after + 1, "next_by_subj": subjects}).encode()
        try:
            answer = await self._bus.client.request(f"$JS.API.DIRECT.GET.{CDC_STREAM}", request, timeout=self._bus.timeout_seconds)
        except (TimeoutError, NatsError) as error:
            raise UnavailableError(f"the bus does not hand out stream {CDC_STREAM}: {error!r}") from error
        headers = answer.headers or {}
        if headers.get("Status") == _NOTHING:
            return None
        if "Nats-Time-Stamp" not in headers:
            raise UnavailableError(f"stream {CDC_STREAM}: {headers.get('Status')} {headers.get('Description', '')}")
        return dt.datetime.fromisoformat(headers["Nats-Time-Stamp"]).timestamp()

    async def wait(self, seconds: float) -> bool:
        """Wait until something was published, at most `seconds`; return whether it was."""
        try:
            async with asyncio.timeout(seconds):
                return await self._wake.wait()
        except TimeoutError:
            return False

    async def _collected(self, reply: str, limit: int) -> list[Message]:
        messages: list[Message] = []
        while len(messages) < limit:
            async with asyncio.timeout(self._bus.timeout_seconds):
                answer = await self._arrived.get()
            if answer.subject != reply:
                continue
            headers = answer.headers or {}
            status = headers.get("Status")
            if status in {_END, _NOTHING}:
                break
            if status is not None:
                raise UnavailableError(f"stream {CDC_STREAM}: {status} {headers.get('Description', '')}")
            messages.append(_message(answer))
        return messages

    async def _woken(self, _message: Msg) -> None:
        self._wake.set()


def _message(answer: Msg) -> Message:
    headers = answer.headers or {}
    try:
        sequence, subject = int(headers["Nats-Sequence"]), headers["Nats-Subject"]
    except (KeyError, ValueError) as error:
        raise InternalError(f"the bus handed out a message without its place: {headers}") from error
    return Message(sequence, subject, answer.data, {name: value for name, value in headers.items() if name not in _OWN_HEADERS})
