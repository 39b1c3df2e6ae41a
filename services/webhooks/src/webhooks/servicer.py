"""gRPC in: registrations, secrets, tests, the log and redrives, each for the caller's own tenant."""

import json
import secrets
import time
from dataclasses import replace

from google.protobuf.timestamp_pb2 import Timestamp

from chassis.errors import FailedPreconditionError, InvalidArgumentError, PermissionDeniedError
from chassis.rpc import Context
from strata.gateway.v1.gateway_events_pb2 import Caller
from strata.webhooks.v1 import webhooks_service_pb2 as pb
from strata.webhooks.v1.webhooks_service_pb2_grpc import WebhooksServiceServicer
from webhooks.addresses import resolve
from webhooks.intake import Intake
from webhooks.journal import FAILED, Entry, Journal
from webhooks.registry import EVENTS, Registry, Secret, Webhook, new_id
from webhooks.settings import Settings
from webhooks.signing import new_secret

WRITE = "webhook:write"
_PAGE, _LARGEST_PAGE = 100, 1000


class WebhooksServicer(WebhooksServiceServicer):
    """Answers the questions of the contract."""

    def __init__(self, registry: Registry, journal: Journal, intake: Intake, settings: Settings) -> None:
        """Hold the domain objects."""
        self._registry, self._journal, self._intake, self._settings = registry, journal, intake, settings

    async def CreateWebhook(self, request: pb.CreateWebhookRequest, context: Context) -> pb.CreateWebhookResponse:  # noqa: N802
        """Register an address that may be reached now."""
        del context
        tenant = _tenant(request.caller)
        if unknown := set(request.events) - set(EVENTS):
            raise InvalidArgumentError(f"unknown events {sorted(unknown)}; known: {list(EVENTS)}")
        if not request.events:
            raise InvalidArgumentError(f"name at least one event of {list(EVENTS)}")
        if sum(1 for _ in self._registry.of(tenant)) >= self._settings.most_webhooks:
            raise FailedPreconditionError(f"a tenant may have {self._settings.most_webhooks} webhooks", code="webhook_limit_reached")
        await resolve(request.url, allow_http=self._settings.allow_http, allowed=self._settings.allowed_networks)
        secret, name = new_secret(), new_id()
        sealed = Secret(self._registry.sealer.seal(secret, f"{tenant}.{name}"))
        by = request.caller.user or request.caller.key_id
        webhook = Webhook(name, tenant, request.url, tuple(dict.fromkeys(request.events)), (sealed,), time.time(), by)
        await self._registry.save(webhook)
        return pb.CreateWebhookResponse(webhook=self._shown(webhook), secret=secret)

    async def ListWebhooks(self, request: pb.ListWebhooksRequest, context: Context) -> pb.ListWebhooksResponse:  # noqa: N802
        """Return the registrations of the tenant."""
        del context
        found = sorted(self._registry.of(_tenant(request.caller)), key=lambda webhook: webhook.created_at)
        return pb.ListWebhooksResponse(webhooks=[self._shown(webhook) for webhook in found])

    async def ChangeWebhook(self, request: pb.ChangeWebhookRequest, context: Context) -> pb.ChangeWebhookResponse:  # noqa: N802
        """Enable, disable or delete a registration."""
        del context
        webhook = self._registry.find(_tenant(request.caller), request.id)
        if request.action == "delete":
            await self._registry.delete(webhook)
            return pb.ChangeWebhookResponse(webhook=self._shown(webhook))
        if request.action not in {"enable", "disable"}:
            raise InvalidArgumentError("the action must be enable, disable or delete")
        enabled = request.action == "enable"
        changed = replace(webhook, enabled=enabled, disabled_reason="" if enabled else "disabled by hand")
        await self._registry.save(changed, webhook)
        self._registry.health_of(changed).failures = 0
        return pb.ChangeWebhookResponse(webhook=self._shown(changed))

    async def RotateSecret(self, request: pb.RotateSecretRequest, context: Context) -> pb.RotateSecretResponse:  # noqa: N802
        """Put a new secret in front; the one before signs too for a while, those before it no more."""
        del context
        webhook = self._registry.find(_tenant(request.caller), request.id)
        secret, until = new_secret(), time.time() + self._settings.rotation_seconds
        old = replace(webhook.secrets[0], expires_at=until)
        changed = replace(webhook, secrets=(Secret(self._registry.sealer.seal(secret, webhook.key)), old))
        await self._registry.save(changed, webhook)
        return pb.RotateSecretResponse(webhook=self._shown(changed), secret=secret, old_until=_moment(until))

    async def TestWebhook(self, request: pb.TestWebhookRequest, context: Context) -> pb.TestWebhookResponse:  # noqa: N802
        """Queue an event that means nothing, also for a webhook that is disabled."""
        del context
        webhook = self._registry.find(_tenant(request.caller), request.id)
        delivery = await self._intake.test(webhook, f"test/{secrets.token_hex(8)}")
        return pb.TestWebhookResponse(delivery_id=delivery)

    async def ListDeliveries(self, request: pb.ListDeliveriesRequest, context: Context) -> pb.ListDeliveriesResponse:  # noqa: N802
        """Return the log, newest first."""
        del context
        webhook = self._registry.find(_tenant(request.caller), request.id)
        found = [e async for e in self._journal.of(webhook.tenant, webhook.id) if request.state in ("", e.state)]
        found.sort(key=lambda entry: entry.created_at, reverse=True)
        return pb.ListDeliveriesResponse(deliveries=[_logged(e) for e in found[: min(request.limit or _PAGE, _LARGEST_PAGE)]])

    async def Redrive(self, request: pb.RedriveRequest, context: Context) -> pb.RedriveResponse:  # noqa: N802
        """Send one delivery of the log again, or all that failed."""
        del context
        webhook = self._registry.find(_tenant(request.caller), request.id)
        if not webhook.enabled:
            raise FailedPreconditionError("enable the webhook first", code="webhook_disabled")
        if request.delivery_id:
            entries = [await self._journal.get(webhook.tenant, webhook.id, request.delivery_id)]
        else:
            entries = [e async for e in self._journal.of(webhook.tenant, webhook.id) if e.state == FAILED]
        for entry in entries:
            await self._intake.again(webhook, entry)
        return pb.RedriveResponse(redriven=len(entries))

    def _shown(self, webhook: Webhook) -> pb.Webhook:
        return pb.Webhook(
            id=webhook.id,
            url=webhook.url,
            events=webhook.events,
            enabled=webhook.enabled,
            disabled_reason=webhook.disabled_reason,
            failures=self._registry.health_of(webhook).failures,
            created_at=_moment(webhook.created_at),
            secrets=len(self._registry.keys_of(webhook)),
        )


def _tenant(caller: Caller) -> str:
    if WRITE not in caller.permissions:
        raise PermissionDeniedError(f"webhooks need the permission {WRITE}")
    return caller.tenant


def _moment(seconds: float) -> Timestamp:
    moment = Timestamp()
    moment.FromMilliseconds(int(seconds * 1000))
    return moment


def _logged(entry: Entry) -> pb.Delivery:
    return pb.Delivery(
        id=entry.id,
        type=entry.type,
        state=entry.state,
        attempts=[pb.Attempt(at=_moment(a.at), status=a.status, latency_ms=a.latency_ms, error=a.error) for a in entry.attempts],
        created_at=_moment(entry.created_at),
        request_id=str(json.loads(entry.payload)["data"].get("request_id", "")),
    )
