"""/v1/sessions: a client has forgotten what the pseudonyms of one of its sessions stand for."""

import hashlib
import json
from urllib.parse import unquote

from chassis import rpc
from gateway.http.chat import Parts
from gateway.http.exchange import Exchange
from gateway.refusals import RefusedError
from strata.guardrail.v1.guardrail_service_pb2 import EraseSessionRequest, EraseSessionResponse
from strata.guardrail.v1.guardrail_service_pb2_grpc import GuardrailServiceStub

SESSIONS_PATH = "/v1/sessions"
_LONGEST = 128


class Sessions:
    """Answers `DELETE /v1/sessions/{session_id}`."""

    def __init__(self, parts: Parts, guardrail: GuardrailServiceStub) -> None:
        """Bind the parts and the service that keeps sessions."""
        self._parts, self._guardrail = parts, guardrail

    async def __call__(self, exchange: Exchange) -> None:
        """Erase a session of the caller's own; raise RefusedError for anything else, or where there is none."""
        caller = self._parts.authenticator.authenticate(exchange.header(b"authorization"))
        session_id = unquote(exchange.path.removeprefix(SESSIONS_PATH).removeprefix("/"))
        if exchange.method != "DELETE" or not 0 < len(session_id) <= _LONGEST:
            raise RefusedError("not_found")
        self._parts.admission.check(caller, "request:create")
        request = EraseSessionRequest(caller=caller, session_id=session_id)
        timeout = self._parts.settings.rpc_timeout_seconds
        found: EraseSessionResponse = await rpc.call(self._guardrail.EraseSession, request, timeout=timeout)
        await self._parts.trail.record(
            "session_erased",
            "succeeded" if found.erased else "failed",
            record_id=f"{exchange.request_id}/session",
            tenant=caller.tenant,
            request_id=exchange.request_id,
            trace_id="",
            started=exchange.started,
            details={"session_sha256": hashlib.sha256(session_id.encode()).hexdigest(), "key_id": caller.key_id, "found": found.erased},
        )
        if not found.erased:
            raise RefusedError("not_found")
        await exchange.respond(200, json.dumps({"object": "session", "id": session_id, "deleted": True}).encode())
