"""Requests that clients publish on the bus; the rules are those of HTTP."""

import hashlib
import json
import secrets
import time
from dataclasses import dataclass

from google.protobuf import json_format
from nats.aio.msg import Msg

from chassis.errors import InvalidArgumentError, ServiceError, UnavailableError
from chassis.logging import get_logger
from chassis.messaging import Bus, Consumer
from contracts.streams import GATEWAY_INGRESS
from contracts.subjects import REQUEST, RESPONSE, TOKEN
from gateway import chat_body, metrics, wire
from gateway.admission import trace_id
from gateway.http.chat import Parts
from gateway.idempotency import Claim, Held, id_name, key_name
from gateway.refusals import RefusedError
from strata.gateway.v1.gateway_events_pb2 import Caller, RequestReceived
from strata.orchestrator.v1.orchestrator_events_pb2 import ResponseReleased

log = get_logger("ingress")
_RESERVED = "req_"
_CLASSES = ("interactive", "batch")


@dataclass(frozen=True)
class _Origin:
    """Where a message came from, which names where the answer goes."""

    request_class: str
    tenant: str
    request_id: str
    chosen: bool


class Ingress:
    """Admits what clients publish, or answers with the code of the error."""

    def __init__(self, parts: Parts, bus: Bus) -> None:
        """Bind the parts."""
        self._parts, self._bus = parts, bus

    def consumer(self) -> Consumer:
        """Return the reader of the ingress."""
        return Consumer(self._bus, GATEWAY_INGRESS, REQUEST, self.handle, workers=self._parts.settings.ingress_workers)

    async def handle(self, received: RequestReceived, message: Msg) -> None:
        """Admit one request; raise UnavailableError when the bus cannot take it, so that it comes again."""
        origin = _origin(received, message)
        try:
            await self._admit(received, message, origin)
            metrics.REQUESTS.labels(ingress="nats", outcome="admitted").inc()
        except UnavailableError:
            raise
        except ServiceError as error:
            metrics.REQUESTS.labels(ingress="nats", outcome=error.code).inc()
            log.info("request_refused", request_id=origin.request_id, tenant=origin.tenant, code=error.code)
            await self._answer(origin, error.code)

    async def _admit(self, received: RequestReceived, message: Msg, origin: _Origin) -> None:
        parts = self._parts
        caller = self._caller(message, origin)
        plain = json_format.MessageToDict(received.body)
        raw = json.dumps(plain, sort_keys=True).encode()
        if len(message.data) > parts.settings.max_body_bytes:
            raise RefusedError("request_too_large")
        body = chat_body.from_object(plain, parts.settings)
        parts.admission.check(caller)
        target = parts.catalogue.resolve(body.model, body.strata.workflow, caller)
        parts.stops.check(tenant=caller.tenant, workflow=target.workflow.name, adapter=target.adapter)
        share = parts.gate.enter(caller.tenant, wire.estimated_tokens(len(raw), body))
        try:
            trace = trace_id(secrets.token_hex(16))
            claims = await self._claims(
                received,
                origin,
                caller,
                Claim(caller.tenant, origin.request_id, trace, hashlib.sha256(raw).hexdigest(), admitted=False, at=time.time()),
            )
            if any(held.claim.admitted for held in claims):
                return
            request = wire.admitted(
                body,
                request_id=origin.request_id,
                trace_id=claims[0].claim.trace_id if claims else trace,
                caller=caller,
                target=target,
                request_class=origin.request_class,
            )
            await parts.admission.accept(request, raw, ingress="nats")
            for held in claims:
                await parts.idempotency.settle(held, admitted=True)
        finally:
            share.leave()

    def _caller(self, message: Msg, origin: _Origin) -> Caller:
        headers = {name.lower(): value for name, value in (message.headers or {}).items()}
        caller = self._parts.authenticator.authenticate(headers.get("authorization"))
        if caller.tenant != origin.tenant:
            raise RefusedError("permission_denied", reason="tenant")
        return caller

    async def _claims(self, received: RequestReceived, origin: _Origin, caller: Caller, claim: Claim) -> list[Held]:
        """Return the claims that this request holds; raise RefusedError when another request holds one of them."""
        store, found = self._parts.idempotency, []
        if origin.chosen:
            found.append(await store.claim(id_name(origin.request_id), claim))
        if received.idempotency_key:
            held = await store.claim(key_name(caller, received.idempotency_key), claim)
            if held.claim.request_id != origin.request_id:
                raise RefusedError("idempotency_conflict", reason="answered_elsewhere")
            found.append(held)
        return found

    async def _answer(self, origin: _Origin, code: str) -> None:
        subject = RESPONSE.at(tenant=origin.tenant, request_id=origin.request_id)
        # Its own trace keeps it from ending an earlier request under the same identifier.
        refused = ResponseReleased(request_id=origin.request_id, trace_id=trace_id(secrets.token_hex(16)), error_code=code)
        await self._bus.publish(RESPONSE, subject, refused, event_id=f"{origin.request_id}/refused", about=origin.request_id)


def _origin(received: RequestReceived, message: Msg) -> _Origin:
    request_class, tenant = message.subject.split(".")[-2:]
    if request_class not in _CLASSES or not TOKEN.fullmatch(tenant):
        raise InvalidArgumentError(f"{message.subject!r} names no class or no tenant; classes: {_CLASSES}")
    chosen = received.request_id
    if not chosen:
        position = f"{message.metadata.stream}/{message.metadata.sequence.stream}/{message.metadata.timestamp.isoformat()}"
        return _Origin(request_class, tenant, _RESERVED + hashlib.sha256(position.encode()).hexdigest()[:24], chosen=False)
    if not TOKEN.fullmatch(chosen) or chosen.startswith(_RESERVED):
        raise InvalidArgumentError(f"{chosen!r} cannot be a request id: one token without the prefix {_RESERVED!r}")
    return _Origin(request_class, tenant, chosen, chosen=True)
