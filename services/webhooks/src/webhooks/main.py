"""The composition root: events in, registrations over gRPC, deliveries out."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial

from chassis import process
from chassis.consuming import consuming
from chassis.messaging import Consumer
from chassis.mirror import Mirror
from chassis.rpc import rpc_server
from chassis.tasks import end, in_time
from contracts.streams import WEBHOOKS, WEBHOOKS_ESCALATIONS, WEBHOOKS_QUEUE, WEBHOOKS_RESPONSES, WEBHOOKS_REVIEWS
from contracts.subjects import ESCALATION, RESPONSE, REVIEW, WEBHOOK
from strata.webhooks.v1.webhooks_service_pb2_grpc import add_WebhooksServiceServicer_to_server
from webhooks.delivering import Courier
from webhooks.intake import Intake
from webhooks.journal import Journal
from webhooks.recording import Recorder
from webhooks.registry import Registry, Sealer, decode
from webhooks.servicer import WebhooksServicer
from webhooks.settings import Settings

NAME = "webhooks"
_SYNC_SECONDS = 30.0


@asynccontextmanager
async def start(runtime: process.Runtime) -> AsyncIterator[None]:
    """Serve until the block ends."""
    settings, bus = runtime.settings, runtime.bus
    if not isinstance(settings, Settings):
        raise TypeError(settings)
    sealer = Sealer.open(settings.state_dir / "credentials" / NAME / "seal.key")
    registry = Registry(bus, sealer, Mirror(bus, WEBHOOKS, decode, refresh_seconds=settings.mirror_refresh_seconds))
    journal = Journal(bus)
    recorder = Recorder(bus)
    intake = Intake(bus, registry, journal, recorder)
    courier = Courier(registry, journal, settings, recorder)
    # The system's resolver blocks a thread for longer than an attempt lasts.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2 * settings.workers, "resolver"))
    runtime.health.checks["registrations"] = registry.mirror.synced.is_set
    following = asyncio.create_task(registry.mirror.run())
    try:
        await in_time(_SYNC_SECONDS, registry.mirror.synced.wait())
        consumers = [
            Consumer(bus, WEBHOOKS_ESCALATIONS, ESCALATION, intake.escalated),
            Consumer(bus, WEBHOOKS_REVIEWS, REVIEW, intake.decided),
            Consumer(bus, WEBHOOKS_RESPONSES, RESPONSE, intake.released),
            Consumer(bus, WEBHOOKS_QUEUE, WEBHOOK, courier.handle, workers=settings.workers),
        ]
        async with consuming(*consumers, drain_seconds=settings.drain_seconds):
            servicer = WebhooksServicer(registry, journal, intake, settings)
            async with rpc_server(settings, NAME, partial(add_WebhooksServiceServicer_to_server, servicer)):
                yield
    finally:
        await end(following)


def main() -> None:
    """Be webhooks until SIGTERM."""
    process.run(NAME, Settings, start)
