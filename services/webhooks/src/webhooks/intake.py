"""Turns events of the stack into deliveries: one for each webhook of the tenant that wants them, none twice."""

import hashlib
import json
import time
from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from nats.aio.msg import Msg

from chassis.messaging import Bus
from contracts.subjects import TOKEN, WEBHOOK
from strata.guardrail.v1.guardrail_events_pb2 import Escalated
from strata.orchestrator.v1.orchestrator_events_pb2 import ResponseReleased
from strata.review.v1.review_events_pb2 import ReviewDecided
from strata.webhooks.v1.webhooks_events_pb2 import DeliveryQueued
from webhooks.journal import Entry, Journal
from webhooks.registry import Registry, Webhook


class Intake:
    """Handles events."""

    def __init__(self, bus: Bus, registry: Registry, journal: Journal) -> None:
        """Bind where registrations are known and deliveries are queued."""
        self._bus, self._registry, self._journal = bus, registry, journal

    async def escalated(self, event: Escalated, _: Msg) -> None:
        """Tell that a person must decide."""
        data = {"request_id": event.request_id, "trace_id": event.trace_id, "reason": event.reason, "severity": event.severity,
                "deadline": _text(event.deadline), "missed_deadlines": event.missed_deadlines}  # fmt: skip
        await self._spread(event.tenant, "escalation.created", data, f"{event.request_id}/{event.rule_id}/{event.missed_deadlines}")

    async def decided(self, event: ReviewDecided, _: Msg) -> None:
        """Tell what people decided; the text is fetched by who may read it."""
        data = {"request_id": event.request_id, "trace_id": event.trace_id, "decision": event.decision, "reason": event.reason,
                "decided_at": _text(event.decided_at)}  # fmt: skip
        await self._spread(event.tenant, "review.decided", data, f"{event.request_id}/{event.decision}/{event.missed_deadlines}")

    async def released(self, event: ResponseReleased, message: Msg) -> None:
        """Tell that a request is over, with its status or the code of its error."""
        if not event.error_code and not event.HasField("completion"):
            return
        tenant = message.subject.split(".")[3]
        status = event.completion.status if event.HasField("completion") else "failed"
        data = {"request_id": event.request_id, "trace_id": event.trace_id, "status": status, "error_code": event.error_code or None}
        await self._spread(tenant, "request.finished", data, event.request_id)

    async def _spread(self, tenant: str, kind: str, data: dict[str, Any], about: str) -> None:
        if not TOKEN.fullmatch(tenant):
            return
        for webhook in self._registry.of(tenant):
            if webhook.enabled and kind in webhook.events:
                await self.queue(webhook, kind, data, about=f"{kind}/{about}")

    async def queue(self, webhook: Webhook, kind: str, data: dict[str, Any], *, about: str) -> str:
        """Queue a delivery and return its identifier, which is the same for a repeat of the same event."""
        delivery_id = "msg_" + hashlib.sha256(f"{webhook.key}/{about}".encode()).hexdigest()[:24]
        now = time.time()
        moment = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")
        body = json.dumps({"type": kind, "timestamp": moment, "data": data}, separators=(",", ":")).encode()
        await self.send(webhook, DeliveryQueued(webhook_id=webhook.id, delivery_id=delivery_id, type=kind, body=body), now)
        return delivery_id

    async def again(self, webhook: Webhook, entry: Entry) -> None:
        """Queue a delivery of the log once more."""
        queued = DeliveryQueued(
            webhook_id=webhook.id, delivery_id=entry.id, type=entry.type, body=entry.payload, redriven=entry.redriven + 1
        )
        await self.send(webhook, queued, entry.created_at)

    async def send(self, webhook: Webhook, queued: DeliveryQueued, created_at: float) -> None:
        """Put a delivery on the stream; raise UnavailableError when it does not take it."""
        queued.tenant = webhook.tenant
        queued.created_at.FromMilliseconds(int(created_at * 1000))
        subject = WEBHOOK.at(tenant=webhook.tenant, webhook_id=webhook.id)
        event_id = f"{webhook.id}/{queued.delivery_id}/{queued.redriven}"
        await self._bus.publish(WEBHOOK, subject, queued, event_id=event_id, about=queued.delivery_id)


def _text(moment: Timestamp) -> str:
    return moment.ToDatetime(UTC).isoformat(timespec="milliseconds")
