"""Puts on record who reads the audit log, and who makes parts of it unreadable."""

import secrets
from collections.abc import Mapping
from typing import Any

from chassis.messaging import Bus
from contracts.subjects import AUDIT
from strata.audit.v1.audit_events_pb2 import StepRecorded
from strata.gateway.v1.gateway_events_pb2 import Caller

READ_STEP = "audit_read"
_MOST_CHARACTERS = 200


class AccessLog:
    """Publishes records about the log itself; they go into it like all others, and publishing one reads nothing."""

    def __init__(self, bus: Bus) -> None:
        """Use the bus' connection."""
        self._bus = bus

    async def read(self, caller: Caller, what: str, *, tenant: str = "", **details: Any) -> None:
        """Record a read before its result is given away; raise UnavailableError when that is not possible."""
        await self.record(caller, READ_STEP, tenant=tenant, what=what, **details)

    async def record(
        self,
        caller: Caller,
        step: str,
        *,
        record_id: str = "",
        tenant: str = "",
        outcome: str = "succeeded",
        phase: str = "",
        code: str = "",
        **details: Any,
    ) -> str:
        """Record what the caller does and return the record's identifier; `tenant` is whose records it is about."""
        record = StepRecorded(
            record_id=record_id or f"{step}/{secrets.token_hex(12)}",
            tenant=tenant or caller.tenant,
            service="audit",
            step=step,
            attempt=1,
            outcome=outcome,
            phase=phase,
            code=code,
            user=caller.user,
            session_id="" if caller.user else f"key/{caller.key_id or caller.role}",
        )
        record.started_at.GetCurrentTime()
        who = {"by_tenant": caller.tenant, "by_role": caller.role, "by_key": caller.key_id}
        record.details.update(_short({**who, **details}))
        await self._bus.publish(AUDIT, AUDIT.at(tenant=record.tenant, step=step), record, event_id=record.record_id)
        return record.record_id


def _short(details: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value[:_MOST_CHARACTERS] if isinstance(value, str) else value for name, value in details.items() if value != ""}
