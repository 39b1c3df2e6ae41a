"""The log of deliveries: what was sent where, every attempt, and what it takes to send it again."""

import base64
import json
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from typing import Any

from nats.errors import Error as NatsError
from nats.js.errors import Error as JetStreamError
from nats.js.errors import KeyNotFoundError
from nats.js.kv import KeyValue

from chassis.errors import NotFoundError, UnavailableError
from chassis.logging import get_logger
from chassis.messaging import Bus, canonical_json
from contracts.streams import DELIVERIES
from strata.webhooks.v1.webhooks_events_pb2 import DeliveryQueued

log = get_logger("journal")
PENDING, DELIVERED, FAILED = "pending", "delivered", "failed"
# Of the attempts, the log keeps the last.
_KEPT = 10
_LIST_SECONDS = 5.0
# Entries that the bucket did not take, until it does.
_MOST_UNWRITTEN = 10_000


@dataclass(frozen=True)
class Attempt:
    """One try: when, the status, milliseconds, and an error token where there was no answer."""

    at: float
    status: int
    latency_ms: float
    error: str


@dataclass
class Entry:
    """What became of one event at one address; `body` is base64."""

    id: str
    tenant: str
    webhook_id: str
    type: str
    body: str
    created_at: float
    state: str = PENDING
    redriven: int = 0
    tries: int = 0
    attempts: list[Attempt] = field(default_factory=list)

    @classmethod
    def of(cls, queued: DeliveryQueued) -> "Entry":
        """Return the entry of a delivery that nobody has tried yet."""
        return cls(
            queued.delivery_id, queued.tenant, queued.webhook_id, queued.type, base64.b64encode(queued.body).decode(),
            queued.created_at.ToMilliseconds() / 1000, redriven=queued.redriven,
        )  # fmt: skip

    @property
    def key(self) -> str:
        """Key of the entry."""
        return f"{self.tenant}.{self.webhook_id}.{self.id}"

    @property
    def payload(self) -> bytes:
        """The body as it is sent."""
        return base64.b64decode(self.body)

    def add(self, attempt: Attempt) -> None:
        """Note one try."""
        self.tries += 1
        self.attempts = [*self.attempts, attempt][-_KEPT:]


class Journal:
    """Reads and writes entries; only the worker that holds a delivery writes its entry."""

    def __init__(self, bus: Bus) -> None:
        """Bind the bus."""
        self._bus = bus
        self._bucket: KeyValue | None = None
        self._unwritten: dict[str, Entry] = {}

    async def _stored(self) -> KeyValue:
        if self._bucket is None:
            self._bucket = await self._bus.js.key_value(DELIVERIES)
        return self._bucket

    async def put(self, entry: Entry) -> None:
        """Write an entry; what the bucket does not take is kept in memory, for nothing may be sent again because its log is away."""
        self._unwritten.pop(entry.key, None)
        try:
            await (await self._stored()).put(entry.key, canonical_json(asdict(entry)))
        except (TimeoutError, NatsError, JetStreamError) as error:
            log.warning("delivery_not_logged", delivery=entry.key, state=entry.state, error=repr(error))
            self._unwritten[entry.key] = entry
            if len(self._unwritten) > _MOST_UNWRITTEN:
                del self._unwritten[next(iter(self._unwritten))]

    async def get(self, tenant: str, webhook_id: str, delivery_id: str) -> Entry:
        """Return an entry; raise NotFoundError, or UnavailableError where the bucket does not answer."""
        key = f"{tenant}.{webhook_id}.{delivery_id}"
        if key in self._unwritten:
            return self._unwritten[key]
        try:
            found = await (await self._stored()).get(key)
        except (KeyNotFoundError, ValueError) as error:
            raise NotFoundError("no such delivery") from error
        except (TimeoutError, NatsError, JetStreamError) as error:
            raise UnavailableError(f"the log of deliveries cannot be read: {error!r}") from error
        return _decode(found.value or b"")

    async def of(self, tenant: str, webhook_id: str) -> AsyncIterator[Entry]:
        """Yield the entries of a webhook in no order."""
        try:
            watcher: Any = await (await self._stored()).watch(f"{tenant}.{webhook_id}.*", ignore_deletes=True)
            try:
                while (entry := await watcher.updates(timeout=_LIST_SECONDS)) is not None:
                    yield _decode(entry.value or b"")
            finally:
                await watcher.stop()
        except (TimeoutError, NatsError, JetStreamError) as error:
            raise UnavailableError(f"the log of deliveries cannot be read: {error!r}") from error


def _decode(value: bytes) -> Entry:
    record = json.loads(value)
    return Entry(**{**record, "attempts": [Attempt(**attempt) for attempt in record["attempts"]]})
