"""The audit's view of a run: one record per step, on the bus before the step counts as done."""

from collections.abc import Mapping
from typing import Any

from chassis.messaging import Bus
from contracts.subjects import AUDIT, PASSAGE, audit_step
from strata.audit.v1.audit_events_pb2 import StepRecorded
from strata.orchestrator.v1.orchestrator_events_pb2 import PassageFlagged


class Recorder:
    """Publishes records of steps; a repeat of the same record is stored once."""

    def __init__(self, bus: Bus) -> None:
        """Use the bus' connection."""
        self._bus = bus

    async def publish(self, record: StepRecorded) -> None:
        """Publish a record and wait until the stream has it; raise UnavailableError otherwise."""
        at = AUDIT.at(tenant=record.tenant, step=audit_step(record.step, record.service))
        await self._bus.publish(AUDIT, at, record, event_id=record.record_id, about=record.request_id)

    async def signal(self, event: PassageFlagged, *, event_id: str) -> None:
        """Publish that a check objected to a passage; raise UnavailableError when the stream does not take it."""
        await self._bus.publish(PASSAGE, PASSAGE.at(), event, event_id=event_id, about=event.chunk_id)


def build(
    *,
    tenant: str,
    request_id: str,
    trace_id: str,
    step: str,
    step_id: str,
    epoch: int,
    outcome: str,
    code: str = "",
    details: Mapping[str, Any] | None = None,
) -> StepRecorded:
    """Return a record whose identifier is the same for every repeat by the same owner."""
    record = StepRecorded(
        record_id=f"{tenant}/{request_id}/{step_id or step}/{epoch}",
        tenant=tenant,
        request_id=request_id,
        trace_id=trace_id,
        service="orchestrator",
        step=step,
        step_id=step_id,
        attempt=epoch,
        outcome=outcome,
        code=code,
    )
    if details:
        record.details.update(details)
    return record
