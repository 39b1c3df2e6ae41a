"""What a key may name, and what became of earlier requests."""

import json
import secrets
from typing import Any

from nats.errors import Error as NatsError
from nats.js.errors import KeyNotFoundError
from nats.js.kv import KeyValue

from chassis import rpc
from chassis.errors import NotFoundError, UnavailableError
from chassis.messaging import to_json
from contracts.errors import known
from contracts.releases import ReleaseInvalidError
from contracts.streams import RUNS
from contracts.subjects import RESPONSE, TOKEN
from gateway import refusals
from gateway.assembly import Assembly, Window
from gateway.http import completion
from gateway.http.chat import Parts
from gateway.http.exchange import Exchange
from gateway.refusals import RefusedError
from gateway.responses import stored
from strata.audit.v1.audit_service_pb2 import GetTraceRequest, GetTraceResponse
from strata.gateway.v1.gateway_events_pb2 import Caller
from strata.orchestrator.v1.orchestrator_events_pb2 import RunRecord

READ_TRACE = "trace:read"


class Lookups:
    """Answers the GET requests."""

    def __init__(self, parts: Parts, get_trace: Any) -> None:
        """Bind the parts and audit's method."""
        self._parts, self._get_trace = parts, get_trace
        self._runs: KeyValue | None = None

    def _caller(self, exchange: Exchange) -> Caller:
        return self._parts.authenticator.authenticate(exchange.header(b"authorization"))

    async def models(self, exchange: Exchange) -> None:
        """List what this key may name."""
        await _json(exchange, {"object": "list", "data": self._models(self._caller(exchange))})

    async def model(self, exchange: Exchange, name: str) -> None:
        """Return one entry of the list."""
        for entry in self._models(self._caller(exchange)):
            if entry["id"] == name:
                return await _json(exchange, entry)
        raise RefusedError("model_not_found", param="model")

    def _models(self, caller: Caller) -> list[dict[str, Any]]:
        created = self._parts.catalogue.started_at
        return [
            {"id": name, "object": "model", "created": created, "owned_by": "strata", "strata": {"kind": kind}}
            for name, kind in self._parts.catalogue.visible(caller)
        ]

    async def request(self, exchange: Exchange, request_id: str) -> None:
        """Return the state of a request that the caller made or may trace, and its answer when there is one."""
        caller = self._caller(exchange)
        if not TOKEN.fullmatch(request_id) or not await self._may_read(caller, request_id):
            raise RefusedError("not_found")
        assembly, windows = await self._stored(caller.tenant, request_id)
        if assembly.error_code:
            return await _json(exchange, {"id": request_id, "status": "finished", "error": _error(RefusedError(assembly.error_code))})
        if not assembly.done:
            if not windows and not await self._is_known(caller, request_id):
                raise RefusedError("not_found")
            return await _json(exchange, {"id": request_id, "object": "request", "status": "pending"})
        return await _json(exchange, await self._finished(caller, request_id, assembly.trace_id, windows))

    async def _may_read(self, caller: Caller, request_id: str) -> bool:
        """Return whether the answer was made for this caller; names in it may be restored for who asked alone."""
        if READ_TRACE in caller.permissions:
            return True
        try:
            self._runs = self._runs or await self._parts.bus.js.key_value(RUNS)
            entry = await self._runs.get(f"{caller.tenant}.{request_id}")
        except KeyNotFoundError:
            return True
        except (TimeoutError, NatsError) as error:
            raise UnavailableError(f"the runs cannot be read: {error!r}") from error
        asked = RunRecord.FromString(entry.value or b"").request.caller
        return (asked.key_id, asked.user) == (caller.key_id, caller.user)

    async def _stored(self, tenant: str, request_id: str) -> tuple[Assembly, list[Window]]:
        assembly = Assembly(self._parts.keys, tenant=tenant, request_id=request_id)
        windows: list[Window] = []
        try:
            async for data in stored(self._parts.bus, RESPONSE.at(tenant=tenant, request_id=request_id)):
                try:
                    windows += assembly.take(data)
                except ReleaseInvalidError:
                    continue
        except (TimeoutError, NatsError) as error:
            raise UnavailableError(f"the stream does not answer: {error!r}") from error
        return assembly, windows

    async def _is_known(self, caller: Caller, request_id: str) -> bool:
        try:
            return bool((await self._trace(caller, request_id)).records)
        except NotFoundError:
            return False

    async def _finished(self, caller: Caller, request_id: str, trace_id: str, windows: list[Window]) -> dict[str, Any]:
        last = windows[-1]
        await self._parts.trail.record(
            "response",
            "succeeded",
            record_id=f"{request_id}/response/{secrets.token_hex(8)}",
            tenant=caller.tenant,
            request_id=request_id,
            trace_id=trace_id,
            details={"windows": len(windows), "status": last.status, "read_later": True, "key_id": caller.key_id},
        )
        finished: dict[str, Any] = {"id": request_id, "object": "request", "status": "finished"}
        try:
            completion.refuse_if_blocked(last)
        except RefusedError as error:
            return {**finished, "error": _error(error)}
        about = completion.strata(last, request_id=request_id, trace_id=trace_id, gateway_ms=None)
        model = about["adapter"] or about["workflow"] or about["tier"]
        return {**finished, "completion": completion.whole(windows, request_id=request_id, model=model, about=about)}

    async def trace(self, exchange: Exchange, trace: str) -> None:
        """Return what the audit log holds of a request of the caller's tenant."""
        caller = self._caller(exchange)
        if READ_TRACE not in caller.permissions:
            raise RefusedError("permission_denied")
        found = await self._trace(caller, trace)
        if not found.records:
            raise RefusedError("not_found")
        await _json(exchange, {"id": trace, "object": "trace", **to_json(found)})

    async def _trace(self, caller: Caller, name: str) -> GetTraceResponse:
        timeout = self._parts.settings.rpc_timeout_seconds
        found: GetTraceResponse = await rpc.call(self._get_trace, GetTraceRequest(id=name, caller=caller), timeout=timeout)
        return found


def _error(error: RefusedError) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(refusals.envelope(error))["error"]
    return {**body, "http_status": known(error.code).http_status}


async def _json(exchange: Exchange, value: dict[str, Any]) -> None:
    await exchange.respond(200, json.dumps(value, separators=(",", ":")).encode())
