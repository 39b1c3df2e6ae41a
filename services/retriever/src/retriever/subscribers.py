"""What retriever does when the knowledge changed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from prometheus_client import Histogram

from chassis.errors import InvalidArgumentError
from chassis.messaging import Bus, decode
from contracts.subjects import KNOWLEDGE
from retriever.shelf import Shelf, log

LAG = Histogram("strata_knowledge_change_lag_seconds", "Time from a change being searchable to its event.", ["kind"])


@asynccontextmanager
async def following(bus: Bus, shelf: Shelf) -> AsyncIterator[None]:
    """Tell `shelf` of every change until the block ends; a lost event only waits for the next poll."""

    async def changed(message: Msg) -> None:
        shelf.changed()
        with suppress(InvalidArgumentError):
            event = decode(KNOWLEDGE, message.data)
            lag = (datetime.now(UTC) - event.searchable_at.ToDatetime(tzinfo=UTC)).total_seconds()
            LAG.labels(kind=message.subject.split(".")[3]).observe(max(lag, 0.0))
            log.debug("knowledge_changed", collection=event.collection, document=event.document_id, version=event.version)

    subscription = await bus.client.subscribe(KNOWLEDGE.pattern, cb=changed)
    try:
        yield
    finally:
        with suppress(NatsError):
            await subscription.unsubscribe()
