"""POST /v1/chat/completions, from the first byte to the last."""

import asyncio
import hashlib
import json
import secrets
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from opentelemetry.trace import SpanKind

from chassis import telemetry
from chassis.errors import ServiceError
from chassis.logging import get_logger
from chassis.messaging import Bus
from chassis.stops import Stops
from gateway import chat_body, metrics, wire
from gateway.admission import Admission, trace_id
from gateway.assembly import Assembly, ReleaseKeys, Window
from gateway.audit_trail import AuditTrail
from gateway.authentication import Authenticator
from gateway.catalogue import AUTO, Catalogue
from gateway.http import completion
from gateway.http.exchange import Exchange
from gateway.idempotency import Claim, Held, Idempotency, key_name
from gateway.limits import Admittance, Gate
from gateway.refusals import RefusedError, as_refusal, envelope
from gateway.responses import ClientGoneError, Waiting
from gateway.settings import Settings
from strata.gateway.v1.gateway_events_pb2 import RequestAdmitted

log = get_logger("chat")
_FIRST_PATIENCE = 3600.0


@dataclass(frozen=True)
class Parts:
    """What answering a request needs."""

    settings: Settings
    bus: Bus
    authenticator: Authenticator
    catalogue: Catalogue
    gate: Gate
    admission: Admission
    idempotency: Idempotency
    keys: ReleaseKeys
    trail: AuditTrail
    stops: Stops


class Chat:
    """Answers chat completions."""

    def __init__(self, parts: Parts) -> None:
        """Bind the parts."""
        self._parts = parts

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request; raise RefusedError or ServiceError while nothing is sent yet."""
        parent = exchange.headers.get(b"traceparent")
        context = telemetry.extract({"traceparent": parent.decode("latin-1")}) if parent else None
        with telemetry.span("POST /v1/chat/completions", kind=SpanKind.SERVER, parent=context):
            await self._answer(exchange)

    async def _answer(self, exchange: Exchange) -> None:
        parts = self._parts
        caller = parts.authenticator.authenticate(exchange.header(b"authorization"))
        raw = await exchange.body(parts.settings.max_body_bytes, parts.settings.body_seconds)
        body = chat_body.parse(raw, parts.settings)
        parts.admission.check(caller)
        target = parts.catalogue.resolve(body.model, body.strata.workflow, caller)
        parts.stops.check(tenant=caller.tenant, workflow=target.workflow.name, adapter=target.adapter)
        use = parts.gate.use(caller.tenant)
        try:
            share = parts.gate.enter(caller.tenant, wire.estimated_tokens(len(raw), body))
        finally:
            exchange.extra = use.headers(parts.gate.clock())
        exchange.add(b"x-strata-route", target.workflow.name)
        exchange.add(b"x-strata-adapter", target.adapter)
        metrics.PENDING.inc()
        try:
            request = wire.admitted(
                body,
                request_id=exchange.request_id,
                trace_id=trace_id(secrets.token_hex(16)),
                caller=caller,
                target=target,
                request_class="interactive",
            )
            usage_wanted = body.stream_options is not None and body.stream_options.include_usage
            await Delivery(parts, exchange, request, share, include_usage=usage_wanted).run(raw, target.workflow.deadline_seconds)
        finally:
            metrics.PENDING.dec()
            share.leave()


class Delivery:
    """One accepted request and its way back to the client."""

    def __init__(self, parts: Parts, exchange: Exchange, request: RequestAdmitted, share: Admittance, *, include_usage: bool) -> None:
        """Bind one request."""
        self._parts, self._exchange, self._request, self._share = parts, exchange, request, share
        self._include_usage = include_usage
        self._digest = hashlib.sha256()
        self._windows = 0
        self._accepted = False

    async def run(self, raw: bytes, deadline_seconds: float) -> None:
        """Accept the request and deliver its answer."""
        held = await self._claim(raw)
        waiting = self._waiting(deadline_seconds)
        watcher: asyncio.Task[None] | None = None
        try:
            await waiting.open()
            await self._accept(raw, held, waiting)
            self._accepted = True
            watcher = asyncio.create_task(self._exchange.gone())
            watcher.add_done_callback(lambda _: waiting.client_gone())
            await (self._stream(waiting) if self._request.stream else self._whole(waiting))
        except ClientGoneError:
            await self._record("failed", code="client_gone")
        except ServiceError as error:
            await self._failed(as_refusal(error))
        finally:
            if watcher is not None:
                watcher.cancel()
            await waiting.close()

    async def _claim(self, raw: bytes) -> Held | None:
        key = self._exchange.headers.get(b"idempotency-key")
        if key is None:
            return None
        request = self._request
        digest = hashlib.sha256(raw).hexdigest()
        claim = Claim(request.caller.tenant, request.request_id, request.trace_id, digest, admitted=False, at=time.time())
        held = await self._parts.idempotency.claim(key_name(request.caller, key.decode("latin-1")), claim)
        request.request_id = self._exchange.request_id = held.claim.request_id
        request.trace_id = held.claim.trace_id
        return held

    def _waiting(self, deadline_seconds: float) -> Waiting:
        settings, request = self._parts.settings, self._request
        tenant, request_id = request.caller.tenant, request.request_id
        seconds = min((deadline_seconds + settings.deadline_grace_seconds) * settings.deadline_factor, settings.max_wait_seconds)
        return Waiting(
            self._parts.bus,
            self._parts.trail,
            Assembly(self._parts.keys, tenant=tenant, request_id=request_id, trace_id=request.trace_id),
            self._parts.stops,
            tenant=tenant,
            request_id=request_id,
            deadline=asyncio.get_running_loop().time() + seconds,
            replay_after=settings.replay_after_seconds,
            stoppable={"workflow": request.workflow, "adapter": request.adapter},
        )

    async def _accept(self, raw: bytes, held: Held | None, waiting: Waiting) -> None:
        parts = self._parts
        if held is not None and (not held.mine or held.taken_over):
            await waiting.replay()
            if not held.mine or waiting.has_something:
                return
        try:
            await parts.admission.accept(
                self._request, raw, ingress="http", client_request_id=self._exchange.header(b"x-client-request-id")
            )
        except ServiceError:
            if held is not None:
                parts.trail.later(parts.idempotency.settle(held, admitted=False))
            raise
        if held is not None:
            await parts.idempotency.settle(held, admitted=True)

    async def _whole(self, waiting: Waiting) -> None:
        windows: list[Window] = []
        while not windows or not windows[-1].final:
            windows += await waiting.next(_FIRST_PATIENCE)
        last = windows[-1]
        self._count(windows)
        completion.refuse_if_blocked(last)
        body = completion.whole(windows, request_id=self._request.request_id, model=self._model(last), about=self._about(last))
        data = json.dumps(body, separators=(",", ":")).encode()
        await self._finish(last, waiting)
        if adapter := (last.completion or {}).get("adapter"):
            self._exchange.extra = [h for h in self._exchange.extra if h[0] != b"x-strata-adapter"]
            self._exchange.add(b"x-strata-adapter", str(adapter))
        left = waiting.is_gone
        await self._exchange.respond(200, data)
        self._handed_over(last.status, left=left)

    async def _stream(self, waiting: Waiting) -> None:
        exchange, ping = self._exchange, self._parts.settings.ping_seconds
        chunks = completion.Chunks(self._request.request_id, self._named())
        while True:
            windows = await waiting.next(ping)
            if windows and not exchange.streaming:
                completion.refuse_if_blocked(windows[-1])
                metrics.FIRST_WINDOW_SECONDS.observe(time.perf_counter() - exchange.started)
            if not exchange.streaming:
                await exchange.begin_events()
            if not windows:
                await exchange.events(completion.PING)
                continue
            self._count(windows)
            last = windows[-1]
            data = b"".join([chunks.window(window) for window in windows])
            if not last.final:
                await exchange.events(data)
                continue
            await self._finish(last, waiting)
            left = waiting.is_gone
            await exchange.events(data + chunks.end(last, self._about(last), include_usage=self._include_usage), last=True)
            return self._handed_over(last.status, left=left)

    def _count(self, windows: list[Window]) -> None:
        self._windows += len(windows)
        for window in windows:
            self._digest.update(window.text.encode())

    async def _finish(self, last: Window, waiting: Waiting) -> None:
        # Before the record, so that both leave in one packet.
        await waiting.close()
        done = last.completion or {}
        self._share.settle(done.get("prompt_tokens", 0) + done.get("completion_tokens", 0))
        await self._record("succeeded", status=last.status)

    async def _record(self, outcome: str, *, code: str = "", status: str = "") -> None:
        """Put on record how it ended, before the client sees the end."""
        exchange, request = self._exchange, self._request
        if outcome == "succeeded" or exchange.streaming or code == "client_gone":
            metrics.REQUESTS.labels(ingress="http", outcome=code or status).inc()
        metrics.REQUEST_SECONDS.observe(time.perf_counter() - exchange.started)
        try:
            await self._recorded(outcome, "attempted" if outcome == "succeeded" else "failed", code=code, status=status)
        except ServiceError as error:
            if outcome == "succeeded":
                raise RefusedError("audit_unavailable") from error
            log.error("audit_record_lost", request_id=request.request_id)  # noqa: TRY400 - chained where it matters

    def _handed_over(self, status: str, *, left: bool) -> None:
        """Put on record, when nobody waits for it, that the end was written to the connection; nobody knows once the client has left."""
        outcome, phase = ("unknown", "unknown") if left else ("succeeded", "verified")
        self._parts.trail.later(self._recorded(outcome, phase, status=status))

    def _recorded(self, outcome: str, phase: str, *, code: str = "", status: str = "") -> Coroutine[Any, Any, None]:
        request = self._request
        return self._parts.trail.record(
            "response",
            outcome,
            record_id=f"{request.request_id}/response/{secrets.token_hex(8)}",
            tenant=request.caller.tenant,
            request_id=request.request_id,
            trace_id=request.trace_id,
            code=code,
            started=self._exchange.started,
            user=request.caller.user,
            phase=phase,
            details={
                "windows": self._windows,
                "status": status,
                "stream": request.stream,
                "text_sha256": self._digest.hexdigest(),
                "key_id": request.caller.key_id,
            },
        )

    async def _failed(self, error: RefusedError) -> None:
        record = self._record("failed", code=error.code)
        if self._accepted:
            await record
        else:
            self._parts.trail.later(record)
        if not self._exchange.streaming:
            raise error
        await self._exchange.events(completion.error_event(envelope(error)), last=True)

    def _named(self) -> str:
        request = self._request
        return request.adapter or request.tier or (request.workflow if request.model == AUTO else request.model)

    def _model(self, last: Window) -> str:
        return str((last.completion or {}).get("adapter") or self._named())

    def _about(self, last: Window) -> dict[str, object]:
        spent = (time.perf_counter() - self._exchange.started) * 1000
        return completion.strata(last, request_id=self._request.request_id, trace_id=self._request.trace_id, gateway_ms=spent)
