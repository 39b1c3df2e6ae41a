"""/v1/audit/erasures and /v1/audit/holds: records of a user made unreadable, or kept from it."""

import json
from collections.abc import Iterable
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chassis import rpc
from chassis.messaging import to_json
from gateway.http.chat import Parts
from gateway.http.exchange import Exchange
from gateway.refusals import RefusedError
from strata.audit.v1 import audit_service_pb2 as pb
from strata.audit.v1.audit_service_pb2_grpc import AuditServiceStub
from strata.gateway.v1.gateway_events_pb2 import Caller

ERASURES, HOLDS = "/v1/audit/erasures", "/v1/audit/holds"
ERASE = "audit:erase"
# Records of erasures are named so.
_PREFIX = "erasure/"
_MAX_BODY = 8 * 1024


class _Order(BaseModel):
    model_config = ConfigDict(extra="forbid")

    # Empty means the caller's own; another's needs `audit:all`, which the audit service checks.
    tenant: str = Field(default="", max_length=64)
    reason: str = Field(min_length=3, max_length=500)


class _Erasure(_Order):
    user: str = Field(min_length=1, max_length=256)


class _Hold(_Order):
    # Empty means the whole tenant.
    user: str = Field(default="", max_length=256)


T = TypeVar("T", bound=_Order)


class Governance:
    """Answers both paths; the audit service does it, and puts it on record."""

    def __init__(self, parts: Parts, service: AuditServiceStub) -> None:
        """Bind the parts and the service."""
        self._parts, self._service = parts, service

    async def __call__(self, exchange: Exchange) -> None:
        """Erase, tell how far that is, hold, lift or list; raise RefusedError for whoever may not, and for anything else."""
        caller = self._parts.authenticator.authenticate(exchange.header(b"authorization"))
        # A log that cannot be written must not keep anybody from a hold; what needs the log is refused by the service.
        if ERASE not in caller.permissions:
            raise RefusedError("permission_denied")
        answers = {
            ("POST", ERASURES): self._erase,
            ("POST", HOLDS): self._hold,
            ("DELETE", HOLDS): self._lift,
            ("GET", HOLDS): self._list,
        }
        if exchange.method == "GET" and exchange.path.startswith(f"{ERASURES}/"):
            await self._erasure(exchange, caller)
            return
        answer = answers.get((exchange.method, exchange.path))
        if answer is None:
            raise RefusedError("not_found")
        await answer(exchange, caller)

    async def _erase(self, exchange: Exchange, caller: Caller) -> None:
        order = _parsed(_Erasure, await self._body(exchange))
        tenant = order.tenant or caller.tenant
        request = pb.EraseSubjectRequest(caller=caller, tenant=tenant, subject=order.user, reason=order.reason)
        done: pb.EraseSubjectResponse = await self._call(self._service.EraseSubject, request)
        about = {"object": "audit.erasure", "tenant": tenant, "keys": done.keys, "requests": done.requests}
        await exchange.respond_json({**about, "id": done.erasure_id.removeprefix(_PREFIX), "holders": _holders(done.holders)})

    async def _erasure(self, exchange: Exchange, caller: Caller) -> None:
        name = exchange.path.removeprefix(f"{ERASURES}/")
        request = pb.GetErasureRequest(caller=caller, erasure_id=f"{_PREFIX}{name}")
        found: pb.GetErasureResponse = await self._call(self._service.GetErasure, request)
        await exchange.respond_json({"object": "audit.erasure", "tenant": found.tenant, "id": name, "holders": _holders(found.holders)})

    async def _hold(self, exchange: Exchange, caller: Caller) -> None:
        order = _parsed(_Hold, await self._body(exchange))
        tenant = order.tenant or caller.tenant
        request = pb.SetHoldRequest(caller=caller, tenant=tenant, subject=order.user, reason=order.reason)
        await self._call(self._service.SetHold, request)
        await exchange.respond_json(
            {"object": "audit.hold", "tenant": tenant, "whole_tenant": not order.user, "reason": order.reason}, status=201
        )

    async def _lift(self, exchange: Exchange, caller: Caller) -> None:
        order = _parsed(_Hold, json.dumps(exchange.query_fields({"tenant", "user", "reason"})).encode())
        tenant = order.tenant or caller.tenant
        request = pb.LiftHoldRequest(caller=caller, tenant=tenant, subject=order.user, reason=order.reason)
        done: pb.LiftHoldResponse = await self._call(self._service.LiftHold, request)
        if not done.lifted:
            raise RefusedError("not_found")
        await exchange.respond_json({"object": "audit.hold", "tenant": tenant, "whole_tenant": not order.user, "lifted": True})

    async def _list(self, exchange: Exchange, caller: Caller) -> None:
        tenant = exchange.query_fields({"tenant"}).get("tenant", caller.tenant)
        found: pb.ListHoldsResponse = await self._call(self._service.ListHolds, pb.ListHoldsRequest(caller=caller, tenant=tenant))
        await exchange.respond_json({"object": "list", "data": [{"object": "audit.hold", **to_json(hold)} for hold in found.holds]})

    async def _body(self, exchange: Exchange) -> bytes:
        return await exchange.body(_MAX_BODY, self._parts.settings.body_seconds)

    async def _call(self, method: Any, request: Any) -> Any:
        return await rpc.call(method, request, timeout=2 * self._parts.settings.rpc_timeout_seconds)


def _holders(states: Iterable[pb.HolderState]) -> list[dict[str, Any]]:
    return [{"holder": one.holder, "state": "erased" if one.done == one.ordered else "pending"} for one in states]


def _parsed(kind: type[T], raw: bytes) -> T:
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        raise RefusedError("invalid_request", str(first["msg"]), param=".".join(map(str, first["loc"])) or None) from error
