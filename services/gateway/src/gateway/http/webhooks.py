"""/v1/webhooks: registrations, secrets, tests, the log of deliveries and redrives."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chassis import rpc
from chassis.errors import ServiceError
from chassis.messaging import to_json
from gateway.http.chat import Parts
from gateway.http.exchange import Exchange
from gateway.refusals import RefusedError
from strata.gateway.v1.gateway_events_pb2 import Caller
from strata.webhooks.v1 import webhooks_service_pb2 as pb
from strata.webhooks.v1.webhooks_service_pb2_grpc import WebhooksServiceStub

WEBHOOKS = "/v1/webhooks"
WRITE = "webhook:write"
_MAX_BODY = 16 * 1024
# What the service says of these is about the caller's own input.
_SHOWN = frozenset({"invalid_request", "webhook_address_refused", "webhook_limit_reached"})
_ACTIONS = frozenset({"enable", "disable"})


class _Registration(BaseModel):
    model_config = ConfigDict(extra="forbid")

    url: str = Field(min_length=1, max_length=2048)
    events: list[str] = Field(min_length=1, max_length=16)


class Webhooks:
    """Answers everything at and below `/v1/webhooks`."""

    def __init__(self, parts: Parts, service: WebhooksServiceStub) -> None:
        """Bind the parts and the service that keeps registrations."""
        self._parts, self._service = parts, service

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request; every change is on record. Raises RefusedError."""
        caller = self._parts.authenticator.authenticate(exchange.header(b"authorization"))
        self._parts.admission.check(caller, WRITE)
        name, _, rest = exchange.path.removeprefix(WEBHOOKS).removeprefix("/").partition("/")
        share = self._parts.gate.enter(caller.tenant, 0)
        try:
            status, body = await self._route(exchange, caller, name, rest)
        except ServiceError as error:
            raise RefusedError(error.code, str(error) if error.code in _SHOWN else "") from error
        finally:
            share.leave()
        if exchange.method != "GET":
            await self._record(exchange, caller, body)
        await exchange.respond_json(body, status=status)

    async def _route(self, exchange: Exchange, caller: Caller, name: str, rest: str) -> tuple[int, dict[str, Any]]:
        route = (exchange.method, bool(name), rest)
        if route == ("POST", False, ""):
            return 201, await self._create(exchange, caller)
        if route == ("GET", False, ""):
            found = await self._call(self._service.ListWebhooks, pb.ListWebhooksRequest(caller=caller))
            return 200, {"object": "list", "data": [_shown(webhook) for webhook in found.webhooks]}
        if exchange.method == "GET" and rest == "deliveries":
            return 200, await self._deliveries(exchange, caller, name)
        return await self._act(exchange.method, caller, name, rest)

    async def _act(self, method: str, caller: Caller, name: str, rest: str) -> tuple[int, dict[str, Any]]:
        if (method, rest) == ("DELETE", "") or (method == "POST" and rest in _ACTIONS):
            request = pb.ChangeWebhookRequest(caller=caller, id=name, action=rest or "delete")
            return 200, _shown((await self._call(self._service.ChangeWebhook, request)).webhook)
        if (method, rest) == ("POST", "rotate"):
            rotated = await self._call(self._service.RotateSecret, pb.RotateSecretRequest(caller=caller, id=name))
            return 200, {**_shown(rotated.webhook), "secret": rotated.secret, "old_until": rotated.old_until.ToJsonString()}
        if (method, rest) == ("POST", "test"):
            tested = await self._call(self._service.TestWebhook, pb.TestWebhookRequest(caller=caller, id=name))
            return 202, {"object": "webhook.test", "id": name, "delivery_id": tested.delivery_id}
        if method == "POST" and (rest == "redrive" or (rest.startswith("deliveries/") and rest.endswith("/redrive"))):
            delivery = rest.removeprefix("deliveries/").removesuffix("redrive").rstrip("/")
            redriven = await self._call(self._service.Redrive, pb.RedriveRequest(caller=caller, id=name, delivery_id=delivery))
            return 202, {"object": "webhook.redrive", "id": name, "redriven": redriven.redriven}
        raise RefusedError("not_found")

    async def _create(self, exchange: Exchange, caller: Caller) -> dict[str, Any]:
        raw = await exchange.body(_MAX_BODY, self._parts.settings.body_seconds)
        try:
            wanted = _Registration.model_validate_json(raw)
        except ValidationError as error:
            first = error.errors()[0]
            raise RefusedError("invalid_request", str(first["msg"]), param=".".join(map(str, first["loc"])) or None) from error
        request = pb.CreateWebhookRequest(caller=caller, url=wanted.url, events=wanted.events)
        created = await self._call(self._service.CreateWebhook, request)
        return {**_shown(created.webhook), "secret": created.secret}

    async def _deliveries(self, exchange: Exchange, caller: Caller, name: str) -> dict[str, Any]:
        query = exchange.query_fields({"limit", "state"})
        limit = query.get("limit", "0")
        if not limit.isdecimal() or len(limit) > 4 or query.get("state", "") not in {"", "pending", "delivered", "failed"}:
            raise RefusedError("invalid_request", "The limit is a number, the state pending, delivered or failed.")
        request = pb.ListDeliveriesRequest(caller=caller, id=name, state=query.get("state", ""), limit=int(limit))
        found = await self._call(self._service.ListDeliveries, request)
        return {"object": "list", "data": [{"object": "webhook.delivery", **to_json(delivery)} for delivery in found.deliveries]}

    async def _call(self, method: Any, request: Any) -> Any:
        return await rpc.call(method, request, timeout=2 * self._parts.settings.rpc_timeout_seconds)

    async def _record(self, exchange: Exchange, caller: Caller, body: dict[str, Any]) -> None:
        await self._parts.trail.record(
            "webhook_change",
            "succeeded",
            record_id=f"{exchange.request_id}/webhook",
            tenant=caller.tenant,
            request_id=exchange.request_id,
            trace_id="",
            details={"method": exchange.method, "path": exchange.path[:200], "webhook": str(body.get("id", "")), "key_id": caller.key_id},
        )


def _shown(webhook: pb.Webhook) -> dict[str, Any]:
    return {"object": "webhook", "enabled": False, "failures": 0, **to_json(webhook)}
