"""The audit's view of deliveries: what was verified to have arrived, and what failed for good."""

from typing import Any

from chassis.messaging import Bus
from contracts.subjects import AUDIT
from strata.audit.v1.audit_events_pb2 import StepRecorded
from webhooks.journal import DELIVERED, Entry
from webhooks.registry import Webhook


class Recorder:
    """Publishes records of deliveries."""

    def __init__(self, bus: Bus) -> None:
        """Use the bus' connection."""
        self._bus = bus

    async def ended(self, webhook: Webhook, entry: Entry) -> None:
        """Put the end of a delivery on record; raise UnavailableError when the stream does not take it."""
        phase = "verified" if entry.state == DELIVERED else "failed"
        record = StepRecorded(
            record_id=f"{entry.tenant}/{entry.webhook_id}/{entry.id}/{entry.redriven}/{phase}",
            tenant=entry.tenant,
            service="webhooks",
            step="webhook",
            attempt=max(entry.tries, 1),
            outcome="succeeded" if phase == "verified" else "failed",
            phase=phase,
        )
        record.started_at.FromMilliseconds(int(entry.created_at * 1000))
        last = entry.attempts[-1] if entry.attempts else None
        status: dict[str, Any] = {"status": last.status, "error": last.error} if last else {}
        record.details.update({"webhook": webhook.id, "delivery": entry.id, "type": entry.type, "tries": entry.tries, **status})
        await self._bus.publish(AUDIT, AUDIT.at(tenant=entry.tenant, step="webhook"), record, event_id=record.record_id, about=entry.id)
