"""Turns events of the stack into deliveries: one for each webhook of the tenant that wants them, none twice."""

import hashlib
import json
import time
from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from nats.aio.msg import Msg
from nats.js.errors import APIError

from chassis.errors import ResourceExhaustedError, UnavailableError
from chassis.logging import get_logger
from chassis.messaging import Bus
from contracts.subjects import TOKEN, WEBHOOK
from strata.guardrail.v1.guardrail_events_pb2 import Escalated
from strata.orchestrator.v1.orchestrator_events_pb2 import ResponseReleased
from strata.review.v1.review_events_pb2 import ReviewDecided
from strata.webhooks.v1.webhooks_events_pb2 import DeliveryQueued
from webhooks.journal import FAILED, Attempt, Entry, Journal
from webhooks.recording import Recorder
from webhooks.registry import TEST, Registry, Webhook

log = get_logger("intake")
_DECISIONS = frozenset({"approve", "correct", "reject"})


class QueueFullError(ResourceExhaustedError):
    """As much waits for this webhook as may."""


class Intake:
    """Handles events."""

    def __init__(self, bus: Bus, registry: Registry, journal: Journal, recorder: Recorder) -> None:
        """Bind where registrations are known and deliveries are queued, and where those are written down that cannot be."""
        self._bus, self._registry, self._journal, self._recorder = bus, registry, journal, recorder

    async def escalated(self, event: Escalated, _: Msg) -> None:
        """Tell that a person must decide."""
        data = {"request_id": event.request_id, "trace_id": event.trace_id, "reason": event.reason, "severity": event.severity,
                "deadline": _text(event.deadline), "missed_deadlines": event.missed_deadlines}  # fmt: skip
        await self._spread(event.tenant, "escalation.created", data, f"{event.request_id}/{event.rule_id}/{event.missed_deadlines}")

    async def decided(self, event: ReviewDecided, _: Msg) -> None:
        """Tell what people decided; the text is fetched by who may read it. Labels and missed deadlines decide nothing."""
        if event.decision not in _DECISIONS:
            return
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
                queued = _queued(webhook, kind, data, f"{kind}/{about}")
                try:
                    await self._send(webhook, queued)
                except QueueFullError:
                    await self._give_up(webhook, queued)

    async def _give_up(self, webhook: Webhook, queued: DeliveryQueued) -> None:
        """Write down what a slow receiver left no room for, so that it can be sent again and nobody else waits for it."""
        log.warning("queue_full", tenant=webhook.tenant, webhook=webhook.id, delivery=queued.delivery_id)
        entry = Entry.of(queued)
        entry.state, entry.attempts = FAILED, [Attempt(time.time(), 0, 0.0, "queue_full")]
        await self._journal.put(entry)
        await self._recorder.ended(webhook, entry)

    async def test(self, webhook: Webhook, about: str) -> str:
        """Queue an event that means nothing and return its delivery's identifier; raise QueueFullError or UnavailableError."""
        queued = _queued(webhook, TEST, {"webhook_id": webhook.id}, about)
        await self._send(webhook, queued)
        return queued.delivery_id

    async def again(self, webhook: Webhook, entry: Entry) -> None:
        """Queue a delivery of the log once more; raise QueueFullError or UnavailableError."""
        queued = DeliveryQueued(
            tenant=webhook.tenant, webhook_id=webhook.id, delivery_id=entry.id, type=entry.type, body=entry.payload,
            redriven=entry.redriven + 1,
        )  # fmt: skip
        queued.created_at.FromMilliseconds(int(entry.created_at * 1000))
        await self._send(webhook, queued)

    async def _send(self, webhook: Webhook, queued: DeliveryQueued) -> None:
        subject = WEBHOOK.at(tenant=webhook.tenant, webhook_id=webhook.id)
        event_id = f"{webhook.id}/{queued.delivery_id}/{queued.redriven}"
        try:
            await self._bus.publish(WEBHOOK, subject, queued, event_id=event_id, about=queued.delivery_id)
        except UnavailableError as error:
            # The whole stream's being full has the same code and other words.
            if isinstance(error.__cause__, APIError) and "per subject" in (error.__cause__.description or ""):
                raise QueueFullError("too much waits for this webhook") from error
            raise


def _queued(webhook: Webhook, kind: str, data: dict[str, Any], about: str) -> DeliveryQueued:
    """Return a delivery; its identifier is the same for a repeat of the same event."""
    delivery_id = "msg_" + hashlib.sha256(f"{webhook.key}/{about}".encode()).hexdigest()[:24]
    now = time.time()
    moment = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")
    body = json.dumps({"type": kind, "timestamp": moment, "data": data}, separators=(",", ":")).encode()
    queued = DeliveryQueued(tenant=webhook.tenant, webhook_id=webhook.id, delivery_id=delivery_id, type=kind, body=body)
    queued.created_at.FromMilliseconds(int(now * 1000))
    return queued


def _text(moment: Timestamp) -> str:
    return moment.ToDatetime(UTC).isoformat(timespec="milliseconds")
