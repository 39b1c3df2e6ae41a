"""When a request counts as accepted: the stream has it, and the audit log has it."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from chassis import telemetry
from chassis.errors import UnavailableError
from chassis.mirror import Mirror
from contracts.subjects import ADMITTED
from gateway.audit_trail import AuditTrail
from gateway.publishing import Publisher, event_headers
from gateway.refusals import RefusedError
from strata.gateway.v1.gateway_events_pb2 import Caller, RequestAdmitted

CREATE = "request:create"
_NO_TRACE = "0" * 32


@dataclass(frozen=True)
class AuditStatus:
    """Whether audit can write."""

    writable: bool
    reason: str


class Admission:
    """Puts requests on the stream and on record."""

    def __init__(self, publisher: Publisher, trail: AuditTrail, status: Mirror[AuditStatus]) -> None:
        """Bind what publishes and what audit says of itself."""
        self._publisher, self._trail, self._status = publisher, trail, status

    def check(self, caller: Caller, permission: str = CREATE) -> None:
        """Raise RefusedError when nothing is accepted now, or not this from this caller."""
        if permission not in caller.permissions:
            raise RefusedError("permission_denied")
        status = self._status.entries.get("audit")
        if status is not None and not status.writable:
            raise RefusedError("audit_unavailable", retry_after_seconds=5)

    async def accept(self, request: RequestAdmitted, body: bytes, *, ingress: str, client_request_id: str = "") -> None:
        """Return when stream and audit log both have it; raise UnavailableError or RefusedError otherwise."""
        tenant, request_id = request.caller.tenant, request.request_id
        subject = ADMITTED.at(request_class=request.request_class, tenant=tenant)
        headers = event_headers(ADMITTED, event_id=request_id, about=request_id)
        pending = await self._publisher.send(ADMITTED, subject, request.SerializeToString(), headers)
        try:
            await self._record(request, body, ingress, client_request_id)
        except UnavailableError as error:
            pending.abandon()
            raise RefusedError("audit_unavailable") from error
        await pending.stored()

    async def _record(self, request: RequestAdmitted, body: bytes, ingress: str, client_request_id: str) -> None:
        details: dict[str, Any] = {
            "body_sha256": hashlib.sha256(body).hexdigest(),
            "model": request.model,
            "workflow": request.workflow,
            "request_class": request.request_class,
            "key_id": request.caller.key_id,
            "role": request.caller.role,
            "ingress": ingress,
            "stream": request.stream,
        }
        if client_request_id:
            details["client_request_sha256"] = hashlib.sha256(client_request_id.encode()).hexdigest()
        await self._trail.record(
            "request",
            "succeeded",
            record_id=f"{request.request_id}/request",
            tenant=request.caller.tenant,
            request_id=request.request_id,
            trace_id=request.trace_id,
            details=details,
            user=request.caller.user,
            session_id=request.session_id,
        )


def trace_id(otherwise: str) -> str:
    """Return the trace of the current span; `otherwise` where tracing is not set up."""
    current = telemetry.current_trace_id()
    return otherwise if current == _NO_TRACE else current


def decode_status(_: str, value: bytes) -> AuditStatus:
    """Return what a service says of itself; raise ValueError for anything else."""
    record = json.loads(value)
    return AuditStatus(writable=record["writable"] is True, reason=str(record.get("reason", "")))
