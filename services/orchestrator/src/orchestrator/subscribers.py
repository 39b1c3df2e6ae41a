"""What the orchestrator reads from the bus."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from nats.aio.msg import Msg

from chassis.consuming import consuming
from chassis.health import Health
from chassis.logging import bound_contextvars
from chassis.messaging import Bus, Consumer
from contracts.answers import document_token
from contracts.streams import ORCHESTRATOR_APPLIED, ORCHESTRATOR_BATCH, ORCHESTRATOR_INTERACTIVE, ORCHESTRATOR_KNOWLEDGE, Durable
from contracts.subjects import ADMITTED, APPLIED, KNOWLEDGE
from orchestrator.answer_cache import AnswerCache
from orchestrator.conductor import Conductor
from orchestrator.settings import Settings
from strata.gateway.v1.gateway_events_pb2 import RequestAdmitted
from strata.ingestor.v1.ingestor_events_pb2 import KnowledgeApplied, KnowledgeChanged


@asynccontextmanager
async def reading(bus: Bus, conductor: Conductor, settings: Settings, health: Health) -> AsyncIterator[None]:
    """Read admitted requests until the block ends, then finish or hand back what runs."""

    async def handle(request: RequestAdmitted, _: Msg) -> None:
        with bound_contextvars(request_id=request.request_id, tenant=request.caller.tenant):
            await conductor.handle(request)

    lanes: dict[str, tuple[Durable, int]] = {
        "interactive": (ORCHESTRATOR_INTERACTIVE, settings.workers),
        "batch": (ORCHESTRATOR_BATCH, settings.batch_workers),
    }
    consumers = [Consumer(bus, durable, ADMITTED, handle, workers=workers, buried=conductor.bury) for durable, workers in lanes.values()]
    async with consuming(*consumers, drain_seconds=settings.drain_seconds) as tasks:
        for name, task in zip(lanes, tasks, strict=True):
            health.checks[f"reads_{name}"] = partial(_reads, task)
        yield


@asynccontextmanager
async def forgetting(bus: Bus, cache: AnswerCache, settings: Settings) -> AsyncIterator[None]:
    """Drop kept answers whose documents change, until the block ends; events of a time without any instance are read later."""

    async def changed(change: KnowledgeChanged, _: Msg) -> None:
        await cache.drop({document_token(change.collection, change.document_id)})

    async def applied(event: KnowledgeApplied, _: Msg) -> None:
        names = [*event.upserted, *event.deleted]
        unnamed = event.upserted_count + event.deleted_count > len(names)
        await cache.drop(None if unnamed else {document_token(*name.split("/", 1)) for name in names if "/" in name})

    knowledge = Consumer(bus, ORCHESTRATOR_KNOWLEDGE, KNOWLEDGE, changed, workers=1)
    index = Consumer(bus, ORCHESTRATOR_APPLIED, APPLIED, applied, workers=1)
    async with consuming(knowledge, index, drain_seconds=settings.drain_seconds):
        yield


def _reads(task: asyncio.Task[None]) -> bool:
    return not task.done()
