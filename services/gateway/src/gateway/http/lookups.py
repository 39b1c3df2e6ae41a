"""What a key may name, and what became of earlier requests."""

import asyncio
import json
import secrets
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.errors import KeyNotFoundError
from nats.js.kv import KV_PURGE, KeyValue

from chassis import rpc
from chassis.errors import NotFoundError, UnavailableError
from chassis.messaging import to_json
from contracts.errors import known
from contracts.releases import ReleaseInvalidError
from contracts.streams import REVIEWS, RUNS
from contracts.subjects import DECISION, RESPONSE, TOKEN, Subject
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
from strata.review.v1.review_events_pb2 import ReviewItem

READ_TRACE = "trace:read"


@dataclass(frozen=True)
class Told:
    """What a client was told of a request so far."""

    assembly: Assembly
    windows: list[Window]
    reviewed: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing was told at all."""
        return not self.windows and not self.assembly.error_code

    @property
    def settled(self) -> bool:
        """Whether nothing more will come."""
        return self.assembly.done and (self.reviewed or not self.windows or self.windows[-1].status != "pending_review")


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
        await exchange.respond_json({"object": "list", "data": self._models(self._caller(exchange))})

    async def model(self, exchange: Exchange, name: str) -> None:
        """Return one entry of the list."""
        for entry in self._models(self._caller(exchange)):
            if entry["id"] == name:
                return await exchange.respond_json(entry)
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
        self._parts.stops.check(tenant=caller.tenant)
        seconds = _wait(exchange.query, self._parts.settings.max_wait_seconds)
        if not TOKEN.fullmatch(request_id) or not await self._may_read(caller, request_id):
            raise RefusedError("not_found")
        told = await self._told(caller.tenant, request_id)
        if told.is_empty and (await self._is_erased(caller, request_id) or not await self._is_known(caller, request_id)):
            raise RefusedError("not_found")
        if seconds and not told.settled:
            share = self._parts.gate.enter(caller.tenant, 0)
            try:
                told = await self._awaited(exchange, caller.tenant, request_id, seconds)
            finally:
                share.leave()
        await exchange.respond_json(await self._body(caller, request_id, told))

    async def _told(self, tenant: str, request_id: str) -> Told:
        """Return what the client was told so far: the decision of a review, or else the answer."""
        decision = await self._stored(DECISION, tenant, request_id)
        return Told(*decision, reviewed=True) if decision[0].done else Told(*await self._stored(RESPONSE, tenant, request_id))

    async def _awaited(self, exchange: Exchange, tenant: str, request_id: str, seconds: float) -> Told:
        """Return what the client was told when there is nothing more to come, it has left, or the time is up."""
        loop, news = asyncio.get_running_loop(), asyncio.Event()
        until, gone = loop.time() + seconds, asyncio.create_task(exchange.gone())

        async def arrived(_: Msg) -> None:
            news.set()

        try:
            async with AsyncExitStack() as open_ones:
                for subject in (RESPONSE, DECISION):
                    subscription = await self._parts.bus.client.subscribe(subject.at(tenant=tenant, request_id=request_id), cb=arrived)
                    open_ones.push_async_callback(subscription.unsubscribe)
                while not (told := await self._told(tenant, request_id)).settled and not gone.done() and (left := until - loop.time()) > 0:
                    waiting = asyncio.create_task(news.wait())
                    patience = min(left, self._parts.settings.replay_after_seconds)
                    await asyncio.wait({waiting, gone}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                    waiting.cancel()
                    news.clear()
                return told
        except NatsError as error:
            raise UnavailableError(f"cannot subscribe: {error!r}") from error
        finally:
            gone.cancel()

    async def _body(self, caller: Caller, request_id: str, told: Told) -> dict[str, Any]:
        status = "reviewed" if told.reviewed else "finished"
        if told.assembly.error_code:
            return {"id": request_id, "status": status, "error": _error(RefusedError(told.assembly.error_code))}
        if not told.assembly.done:
            return {"id": request_id, "object": "request", "status": "pending"}
        return await self._finished(caller, request_id, told, status if told.settled else "pending_review")

    async def _is_erased(self, caller: Caller, request_id: str) -> bool:
        """Return whether nothing is kept of a request because its user was erased; its records are still known to be there."""
        try:
            self._runs = self._runs or await self._parts.bus.js.key_value(RUNS)
            await self._runs.get(f"{caller.tenant}.{request_id}")
        except KeyNotFoundError as gone:
            return bool(gone.op == KV_PURGE)
        except (TimeoutError, NatsError) as error:
            raise UnavailableError(f"the runs cannot be read: {error!r}") from error
        return False

    async def _may_read(self, caller: Caller, request_id: str) -> bool:
        """Return whether the answer was made for this caller; names in it may be restored for who asked alone."""
        if READ_TRACE in caller.permissions:
            return True
        try:
            self._runs = self._runs or await self._parts.bus.js.key_value(RUNS)
            entry = await self._runs.get(f"{caller.tenant}.{request_id}")
            asked = RunRecord.FromString(entry.value or b"").request.caller
        except KeyNotFoundError:
            reviewed = await self._reviewed_for(caller.tenant, request_id)
            if reviewed is None:
                return True
            asked = reviewed
        except (TimeoutError, NatsError) as error:
            raise UnavailableError(f"the runs cannot be read: {error!r}") from error
        return (asked.key_id, asked.user) == (caller.key_id, caller.user)

    async def _reviewed_for(self, tenant: str, request_id: str) -> Caller | None:
        """Return who asked for what was reviewed; runs are forgotten sooner than reviews."""
        try:
            entry = await (await self._parts.bus.js.key_value(REVIEWS)).get(f"{tenant}.{request_id}")
        except KeyNotFoundError:
            return None
        except (TimeoutError, NatsError) as error:
            raise UnavailableError(f"the reviews cannot be read: {error!r}") from error
        return ReviewItem.FromString(entry.value or b"").requester

    async def _stored(self, subject: Subject, tenant: str, request_id: str) -> tuple[Assembly, list[Window]]:
        assembly = Assembly(self._parts.keys, tenant=tenant, request_id=request_id, reviewed=subject is DECISION)
        windows: list[Window] = []
        try:
            async for data in stored(self._parts.bus, subject.at(tenant=tenant, request_id=request_id)):
                try:
                    windows += assembly.take(data)
                except ReleaseInvalidError:
                    continue
        except (TimeoutError, NatsError) as error:
            raise UnavailableError(f"the stream does not answer: {error!r}") from error
        return assembly, windows

    async def _is_known(self, caller: Caller, request_id: str) -> bool:
        try:
            return bool((await self._trace(caller, request_id, places_only=True)).records)
        except NotFoundError:
            return False

    async def _finished(self, caller: Caller, request_id: str, told: Told, status: str) -> dict[str, Any]:
        windows, trace_id = told.windows, told.assembly.trace_id
        last = windows[-1]
        await self._parts.trail.record(
            "response",
            "succeeded",
            record_id=f"{request_id}/response/{secrets.token_hex(8)}",
            tenant=caller.tenant,
            request_id=request_id,
            trace_id=trace_id,
            details={"windows": len(windows), "status": last.status, "read_later": True, "key_id": caller.key_id},
            phase="attempted",
        )
        finished: dict[str, Any] = {"id": request_id, "object": "request", "status": status}
        try:
            # A person's refusal is an answer.
            if not told.reviewed:
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
        await exchange.respond_json({"id": trace, "object": "trace", **to_json(found)})

    async def _trace(self, caller: Caller, name: str, *, places_only: bool = False) -> GetTraceResponse:
        timeout = self._parts.settings.rpc_timeout_seconds
        request = GetTraceRequest(id=name, caller=caller, places_only=places_only)
        found: GetTraceResponse = await rpc.call(self._get_trace, request, timeout=timeout)
        return found


def _error(error: RefusedError) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(refusals.envelope(error))["error"]
    return {**body, "http_status": known(error.code).http_status}


def _wait(raw: bytes, longest: float) -> float:
    """Return how long a client is ready to wait, in seconds; raise RefusedError for what is no such number."""
    try:
        found = parse_qs(raw.decode("ascii"), strict_parsing=bool(raw), max_num_fields=10, errors="strict")
        seconds = float(found.get("wait", ["0"])[-1])
    except ValueError as error:
        raise RefusedError("invalid_request", "Give `wait` in seconds.", param="wait") from error
    if not seconds >= 0:
        raise RefusedError("invalid_request", "Give `wait` in seconds.", param="wait")
    return min(seconds, longest)
