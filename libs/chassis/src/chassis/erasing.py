"""Orders to forget a person: carried out by each service that keeps what people said, and put on record when nothing is left there."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime

from nats.aio.msg import Msg

from chassis.consuming import consuming
from chassis.errors import UnavailableError
from chassis.logging import get_logger
from chassis.messaging import Bus, Consumer
from contracts.streams import Durable
from contracts.subjects import AUDIT, ERASURE
from strata.audit.v1.audit_events_pb2 import ErasureOrdered, StepRecorded

log = get_logger("erasing")
_WORKERS = 2

# Forgets what an order names; raises UnavailableError while something is left, and is asked again for as long as it does.
Forget = Callable[[ErasureOrdered], Awaitable[None]]


class StillOpenError(UnavailableError):
    """A request of the person is not over; what it leaves behind is erased when it is."""


@asynccontextmanager
async def erasing(bus: Bus, durable: Durable, forget: Forget, *, drain_seconds: float) -> AsyncIterator[None]:
    """Carry out orders until the block ends; those that came while nobody ran wait for the next start."""

    async def handle(order: ErasureOrdered, message: Msg) -> None:
        await forget(order)
        await _record(bus, order, message.metadata.timestamp)
        log.info("erased", erasure=order.erasure_id, part=order.part, requests=len(order.requests), sessions=len(order.session_ids))

    consumer = Consumer(bus, durable, ERASURE, handle, workers=_WORKERS)
    async with consuming(consumer, drain_seconds=drain_seconds):
        yield


def record_id(erasure_id: str, holder: str, part: int) -> str:
    """Return the identifier of the record that an order is carried out; a repeat is the same record."""
    return f"{erasure_id}/{holder}/{part}"


def step_of(holder: str) -> str:
    """Return the step under which a service, and no other, may say that it has erased."""
    return f"erased_{holder}"


async def _record(bus: Bus, order: ErasureOrdered, ordered_at: datetime) -> None:
    name = record_id(order.erasure_id, order.holder, order.part)
    record = StepRecorded(
        record_id=name,
        tenant=order.tenant,
        service=bus.name,
        step=step_of(order.holder),
        attempt=1,
        outcome="succeeded",
        phase="verified",
    )
    # The same for every attempt.
    record.started_at.FromDatetime(ordered_at)
    record.details.update({"erasure": order.erasure_id, "requests": len(order.requests), "sessions": len(order.session_ids)})
    await bus.publish(AUDIT, AUDIT.at(tenant=order.tenant, step=record.step), record, event_id=name)
