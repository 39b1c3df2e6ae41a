"""The bus: CloudEvents out, one policy of leases, retries and dead letters in."""

import asyncio
import json
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import PubAck
from nats.js.errors import APIError, NoStreamResponseError
from opentelemetry.trace import SpanKind

from chassis import telemetry
from chassis.errors import InvalidArgumentError, ServiceError, UnavailableError
from chassis.identity import Credentials
from chassis.json_mapping import to_json_bytes
from chassis.logging import bound_contextvars, get_logger
from chassis.producing import Producer
from chassis.settings import ServiceSettings
from chassis.tasks import in_time
from contracts.identities import inbox_prefix
from contracts.streams import Durable
from contracts.subjects import Subject, dead

log = get_logger("messaging")
_RETRY_DELAYS = (0.2, 0.5, 1.0, 2.0, 5.0)
_PULL_SECONDS = 2.0


def encode(subject: Subject, message: Message) -> bytes:
    """Return the body of `message` in the encoding of its subject."""
    if subject.json:
        return to_json_bytes(message)
    return message.SerializeToString()


def decode(subject: Subject, data: bytes) -> Any:
    """Return the message of a body; raise InvalidArgumentError when it is none."""
    try:
        if subject.json:
            return json_format.Parse(data, subject.message(), ignore_unknown_fields=True)
        return subject.message.FromString(data)
    except (json_format.ParseError, DecodeError, UnicodeDecodeError) as error:
        raise InvalidArgumentError(f"not a {subject.message.DESCRIPTOR.full_name}: {error}") from error


def cloud_event(source: str, subject: Subject, *, event_id: str, about: str) -> dict[str, str]:
    """Return the headers of a CloudEvent in binary mode, with the trace of this hop."""
    headers = {
        "Nats-Msg-Id": event_id,
        "ce-specversion": "1.0",
        "ce-id": quote(event_id, safe="/:@-._~"),
        "ce-source": f"/strata/{source}",
        "ce-type": subject.message.DESCRIPTOR.full_name,
        "ce-subject": quote(about, safe="/:@-._~"),
        "ce-time": datetime.now(UTC).isoformat(),
        "ce-datacontenttype": "application/json" if subject.json else "application/protobuf",
    }
    telemetry.inject(headers)
    return headers


@dataclass
class Bus:
    """A connection to the bus under one service's identity."""

    name: str
    client: Client
    js: JetStreamContext
    timeout_seconds: float
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    producer: Producer = field(init=False)

    def __post_init__(self) -> None:
        """Begin to count the records that this process publishes."""
        self.producer = Producer(self.name)

    async def publish(self, subject: Subject, at: str, message: Message, *, event_id: str | None = None, about: str = "") -> PubAck:
        """Publish and wait until the stream has it; a repeat with the same `event_id` is stored once."""
        headers = cloud_event(self.name, subject, event_id=event_id or uuid.uuid4().hex, about=about)
        number = self.producer.stamp(message)
        try:
            ack = await self.js.publish(at, encode(subject, message), stream=subject.stream, headers=headers, timeout=self.timeout_seconds)
        except (TimeoutError, NatsError, NoStreamResponseError, APIError) as error:
            self.producer.failed(event_id or "", number)
            raise UnavailableError(f"the bus did not take {at!r}: {error!r}") from error
        self.producer.stored(number, duplicate=bool(ack.duplicate))
        telemetry.PUBLISHED.labels(subject=subject.pattern).inc()
        return ack

    async def drain(self) -> None:
        """Finish what is in flight and leave."""
        with suppress(NatsError, TimeoutError):
            await in_time(20, self.client.drain())


async def connect(settings: ServiceSettings, name: str, *, reconnect: bool = True) -> Bus:
    """Connect as `name`, and keep reconnecting for as long as the process lives; without `reconnect`, end with the first connection."""
    closed = asyncio.Event()
    client = Client()

    async def on_error(error: Exception) -> None:
        telemetry.BUS_ERRORS.inc()
        log.error("bus_error", error=str(error))

    async def on_disconnected() -> None:
        # Leaving on purpose disconnects too.
        if not (client.is_closed or client.is_draining):
            log.warning("bus_disconnected")

    async def on_closed() -> None:
        closed.set()

    seed = settings.nats.seed_file or Credentials(name, settings.state_dir).nkey_seed_file
    await client.connect(
        settings.nats_url,
        name=name,
        nkeys_seed=str(seed),
        inbox_prefix=inbox_prefix(name).encode(),
        ping_interval=int(settings.nats.ping_interval_seconds),
        max_outstanding_pings=2,
        allow_reconnect=reconnect,
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.25,  # type: ignore[arg-type] # a float works, and a whole second is long
        error_cb=on_error,
        disconnected_cb=on_disconnected,
        closed_cb=on_closed,
    )
    js = client.jetstream(timeout=settings.nats.request_timeout_seconds)
    return Bus(name, client, js, settings.nats.request_timeout_seconds, closed)


Handler = Callable[[Any, Msg], Awaitable[None]]
Buried = Callable[[Any, Exception], Awaitable[None]]


class LeaseLostError(Exception):
    """Somebody else owns the message now; raised by a handler so that it is neither acknowledged nor handed back."""


class Consumer:
    """Reads one durable with bounded concurrency; each message is leased and renewed while it is handled."""

    def __init__(
        self, bus: Bus, durable: Durable, subject: Subject, handler: Handler, *, workers: int = 8, buried: Buried | None = None
    ) -> None:
        """Bind a handler, and what to do before a readable message is given up; nothing is read before `run`."""
        self._bus, self._durable, self._subject, self._handler = bus, durable, subject, handler
        self._workers, self._buried = workers, buried
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._pull_over = asyncio.Event()
        self._expected, self._pull_inbox, self._trouble = 0, "", False

    async def run(self) -> None:
        """Read until `stop`; the bus going away only pauses it."""
        # nats-py's fetch(n) holds the first message back until n have come or its timeout is over, hence the own pull.
        inbox = self._bus.client.new_inbox()
        subscription = await self._bus.client.subscribe(f"{inbox}.*", cb=self._arrived)
        stopped = asyncio.create_task(self._stopping.wait())
        pulls = 0
        while not self._stopping.is_set():
            if (free := self._workers - len(self._tasks)) <= 0:
                await asyncio.wait([stopped, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
                continue
            pulls += 1
            self._pull_inbox = f"{inbox}.{pulls}"
            try:
                await self._pull(free, stopped)
            except NatsError as error:
                log.warning("pull_failed", durable=self._durable.name, error=repr(error))
                self._trouble = True
            if self._trouble:
                await asyncio.sleep(0.25)
        # A drain of the connection would wait for whatever is still queued here.
        await subscription.unsubscribe()

    async def _pull(self, batch: int, stopped: asyncio.Task[Any]) -> None:
        """Ask for up to `batch` messages; return when they came, when the pull expired, or when it is time to stop."""
        self._expected, self._trouble = batch, False
        self._pull_over.clear()
        request = json.dumps({"batch": batch, "expires": int(_PULL_SECONDS * 1e9)}).encode()
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._durable.stream}.{self._durable.name}"
        await self._bus.client.publish(subject, request, reply=self._pull_inbox)
        over = asyncio.create_task(self._pull_over.wait())
        await asyncio.wait([over, stopped], timeout=_PULL_SECONDS + 0.5, return_when=asyncio.FIRST_COMPLETED)
        over.cancel()

    async def _arrived(self, message: Msg) -> None:
        status = (message.headers or {}).get("Status")
        if status is not None:
            if message.subject == self._pull_inbox:
                self._trouble = status not in {"404", "408"}
                self._pull_over.set()
            return
        if self._stopping.is_set():
            await message.nak()
            return
        task = asyncio.create_task(self._handle(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._expected -= 1
        if self._expected <= 0:
            self._pull_over.set()

    async def stop(self, grace_seconds: float) -> None:
        """Take nothing new, let what runs finish, hand back what does not."""
        self._stopping.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_seconds)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _handle(self, message: Msg) -> None:
        started, outcome = time.perf_counter(), "acked"
        gauge = telemetry.MESSAGES_IN_FLIGHT.labels(durable=self._durable.name)
        gauge.inc()
        lease = asyncio.create_task(self._renew(message))
        try:
            with (
                telemetry.span(f"process {self._subject.pattern}", kind=SpanKind.CONSUMER, parent=telemetry.extract(message.headers)),
                bound_contextvars(subject=message.subject, delivery=message.metadata.num_delivered),
            ):
                outcome = await self._attempt(message)
        except asyncio.CancelledError:
            outcome = "handed_back"
            with suppress(NatsError):
                await message.nak()
            raise
        finally:
            lease.cancel()
            gauge.dec()
            seconds = time.perf_counter() - started
            telemetry.MESSAGE_SECONDS.labels(durable=self._durable.name, outcome=outcome).observe(seconds)

    async def _attempt(self, message: Msg) -> str:
        delivery = message.metadata.num_delivered
        try:
            if 0 < self._durable.max_deliver < delivery:
                return await self._bury(message, InvalidArgumentError(f"delivered {delivery} times without success"))
            await self._handler(decode(self._subject, message.data), message)
            await message.ack()
        except LeaseLostError:
            return "lost"
        except Exception as error:
            if not isinstance(error, ServiceError):
                log.exception("message_failed")
            return await self._retry_or_bury(message, error)
        return "acked"

    async def _retry_or_bury(self, message: Msg, error: Exception) -> str:
        """Hand back what may succeed later, with a delay; a bug may too, so it is retried as well."""
        delivery = message.metadata.num_delivered
        hopeless = isinstance(error, ServiceError) and not error.retryable
        if hopeless or 0 < self._durable.max_deliver <= delivery:
            return await self._bury(message, error)
        await message.nak(delay=_RETRY_DELAYS[min(delivery, len(_RETRY_DELAYS)) - 1])
        log.info("message_retried", code=getattr(error, "code", "internal_error"), error=str(error))
        return "retried"

    async def _bury(self, message: Msg, error: Exception) -> str:
        """Write the dead letter before the message is given up; without it the message stays."""
        code = getattr(error, "code", "internal_error")
        if self._buried is not None:
            with suppress(InvalidArgumentError):
                await self._buried(decode(self._subject, message.data), error)
        headers = {
            **(message.headers or {}),
            "Nats-Msg-Id": f"dead/{self._durable.stream}/{message.metadata.sequence.stream}",
            "strata-error-code": code,
            "strata-error": " ".join(str(error).split())[:500],
            "strata-subject": message.subject,
            "strata-durable": self._durable.name,
        }
        subject, timeout = dead(self._durable.stream), self._bus.timeout_seconds
        await self._bus.js.publish(subject, message.data, headers=headers, stream="DEAD", timeout=timeout)
        await message.term()
        log.error("message_buried", code=code, error=str(error))
        return "buried"

    async def _renew(self, message: Msg) -> None:
        while True:
            await asyncio.sleep(self._durable.ack_wait_seconds / 3)
            with suppress(NatsError):
                await message.in_progress()


def to_json(message: Message) -> dict[str, Any]:
    """Return a message as plain JSON types, field names as in the proto."""
    result: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return result


def canonical_json(value: object) -> bytes:
    """Return JSON with sorted keys and no spaces, the same bytes for the same value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
