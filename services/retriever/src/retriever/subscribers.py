"""What retriever does when the knowledge changed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from prometheus_client import Histogram

from chassis import rpc
from chassis.errors import InvalidArgumentError, ServiceError
from chassis.messaging import Bus, decode
from chassis.tasks import end
from contracts.subjects import APPLIED, KNOWLEDGE
from retriever.settings import Settings
from retriever.shelf import Shelf, log
from retriever.staleness import Answered
from retriever.watermarks import Watermarks
from strata.ingestor.v1.knowledge_service_pb2 import GetStatusRequest
from strata.ingestor.v1.knowledge_service_pb2_grpc import KnowledgeServiceStub

LAG = Histogram("strata_knowledge_change_lag_seconds", "Time from a change being searchable to its event.", ["kind"])


@asynccontextmanager
async def following(settings: Settings, bus: Bus, shelf: Shelf, watermarks: Watermarks, answered: Answered) -> AsyncIterator[None]:
    """Tell `shelf` of every change, `watermarks` of every place and `answered` of every document, until the block ends.

    What is lost comes with the next look, but for documents: passages that were stale are then not counted.
    """

    async def changed(message: Msg) -> None:
        shelf.changed()
        with suppress(InvalidArgumentError):
            event = decode(KNOWLEDGE, message.data)
            lag = (datetime.now(UTC) - event.searchable_at.ToDatetime(tzinfo=UTC)).total_seconds()
            LAG.labels(kind=message.subject.split(".")[3]).observe(max(lag, 0.0))
            log.debug("knowledge_changed", collection=event.collection, document=event.document_id, version=event.version)

    async def applied(message: Msg) -> None:
        shelf.changed()
        with suppress(InvalidArgumentError):
            event = decode(APPLIED, message.data)
            at = event.searchable_at.ToDatetime(tzinfo=UTC).timestamp()
            answered.changed([*event.upserted, *event.deleted], event.committed_at.ToDatetime(tzinfo=UTC).timestamp(), at)
            await watermarks.moved(event.collections, event.last_position, at)

    subscriptions = [await bus.client.subscribe(KNOWLEDGE.pattern, cb=changed), await bus.client.subscribe(APPLIED.pattern, cb=applied)]
    asking = asyncio.create_task(_ask(settings, watermarks))
    try:
        yield
    finally:
        await end(asking)
        for subscription in subscriptions:
            with suppress(NatsError):
                await subscription.unsubscribe()


async def _ask(settings: Settings, watermarks: Watermarks) -> None:
    """Ask ingestor how far its sources are, again and again: an event may have been lost while the bus was away."""
    async with rpc.channel(settings, "retriever", "ingestor") as channel:
        stub = KnowledgeServiceStub(channel)
        while True:
            try:
                status = await rpc.call(stub.GetStatus, GetStatusRequest(), timeout=settings.ask_seconds)
                for source in status.sources:
                    await watermarks.moved(source.collections, source.position, datetime.now(UTC).timestamp())
            except ServiceError as error:
                log.debug("ingestor_silent", error=str(error))
            await asyncio.sleep(settings.ask_seconds)
