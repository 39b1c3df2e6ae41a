"""What the orchestrator reads from the bus."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from chassis.health import Health
from chassis.logging import bound_contextvars, get_logger
from chassis.messaging import Bus, Consumer
from contracts.streams import ORCHESTRATOR_BATCH, ORCHESTRATOR_INTERACTIVE, Durable
from contracts.subjects import ADMITTED
from orchestrator.conductor import Conductor
from orchestrator.settings import Settings
from strata.gateway.v1.gateway_events_pb2 import RequestAdmitted

log = get_logger("subscribers")
_PAUSE_SECONDS = 0.5


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
    consumers = {
        name: Consumer(bus, durable, ADMITTED, handle, workers=workers, buried=conductor.bury) for name, (durable, workers) in lanes.items()
    }
    tasks = {name: asyncio.create_task(_forever(consumer)) for name, consumer in consumers.items()}
    for name, task in tasks.items():
        health.checks[f"reads_{name}"] = partial(_reads, task)
    try:
        yield
    finally:
        await asyncio.gather(*(consumer.stop(settings.drain_seconds) for consumer in consumers.values()))
        await asyncio.gather(*tasks.values(), return_exceptions=True)


def _reads(task: asyncio.Task[None]) -> bool:
    return not task.done()


async def _forever(consumer: Consumer) -> None:
    """Keep reading; a loop that ends on a fault of the bus would strand what others leave behind."""
    while True:
        try:
            await consumer.run()
            return
        except NatsError:
            log.exception("reading_failed")
            await asyncio.sleep(_PAUSE_SECONDS)
