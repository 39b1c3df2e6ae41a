"""Sends one delivery: resolved, pinned, signed, bounded in time and size, tried again with growing pauses, given up at a bound."""

import base64
import random
import ssl
import time
from collections.abc import Awaitable, Callable

import httpx
from nats.aio.msg import Msg
from prometheus_client import Counter, Histogram

from chassis.errors import ConflictError, NotFoundError
from chassis.logging import get_logger
from chassis.messaging import LeaseLostError
from strata.webhooks.v1.webhooks_events_pb2 import DeliveryQueued
from webhooks import signing
from webhooks.addresses import AddressRefusedError, Target, resolve
from webhooks.journal import DELIVERED, FAILED, Attempt, Entry, Journal
from webhooks.registry import TEST, Registry, Webhook
from webhooks.settings import Settings

log = get_logger("delivering")
ATTEMPTS = Counter("strata_webhooks_attempts_total", "Attempts by how they ended.", ["outcome"])
DELIVERIES = Counter("strata_webhooks_deliveries_total", "Deliveries by how they ended.", ["outcome"])
SECONDS = Histogram("strata_webhooks_attempt_duration_seconds", "Time of one attempt.")
# An answer's body is of no use; more than this is not even read.
_MOST_BYTES = 16 * 1024
_BUSY_PAUSE = 1.0
# The receiver wants nothing more: no repeat will help.
_GONE = 410
Record = Callable[[Webhook, Entry, str], Awaitable[None]]


class Courier:
    """Works on the queue of deliveries."""

    def __init__(self, registry: Registry, journal: Journal, settings: Settings, record: Record) -> None:
        """Bind the parts; `record` puts the end of a delivery into the audit log."""
        self._registry, self._journal, self._settings, self._record = registry, journal, settings, record
        self._tls = ssl.create_default_context()

    async def handle(self, queued: DeliveryQueued, message: Msg) -> None:
        """Make one attempt; what failed comes back after a pause, what cannot succeed ends in the log."""
        try:
            webhook = self._registry.find(queued.tenant, queued.webhook_id)
        except NotFoundError:
            return
        health = self._registry.health_of(webhook)
        if health.busy >= self._settings.workers_each:
            await self._later(message, _BUSY_PAUSE)
        entry = await self._entry(queued)
        if entry.state == DELIVERED:
            return
        if not webhook.enabled and queued.type != TEST:
            await self._over(webhook, entry, FAILED)
            return
        health.busy += 1
        try:
            attempt = await self._attempt(webhook, queued)
        finally:
            health.busy -= 1
        entry.add(attempt)
        if 200 <= attempt.status < 300:
            health.failures = 0
            await self._over(webhook, entry, DELIVERED)
            return
        health.failures += 1
        await self._maybe_disable(webhook, attempt)
        if attempt.status == _GONE or attempt.error == "address_refused" or entry.tries >= self._settings.attempts:
            await self._over(webhook, entry, FAILED)
            return
        await self._journal.put(entry)
        await self._later(message, self._pause(entry.tries))

    async def _entry(self, queued: DeliveryQueued) -> Entry:
        try:
            entry = await self._journal.get(queued.tenant, queued.webhook_id, queued.delivery_id)
        except NotFoundError:
            entry = None
        if entry is None or entry.redriven < queued.redriven:
            attempts = entry.attempts if entry else []
            entry = Entry(
                queued.delivery_id, queued.tenant, queued.webhook_id, queued.type, base64.b64encode(queued.body).decode(),
                queued.created_at.ToMilliseconds() / 1000, redriven=queued.redriven, attempts=attempts,
            )  # fmt: skip
        return entry

    async def _over(self, webhook: Webhook, entry: Entry, state: str) -> None:
        entry.state = state
        DELIVERIES.labels(outcome=state).inc()
        # The record comes first: a crash between the two repeats both, and a repeat of either changes nothing.
        await self._record(webhook, entry, "verified" if state == DELIVERED else "failed")
        await self._journal.put(entry)

    async def _maybe_disable(self, webhook: Webhook, attempt: Attempt) -> None:
        health = self._registry.health_of(webhook)
        gone = attempt.status == _GONE
        if not gone and health.failures < self._settings.disable_after:
            return
        reason = "the receiver answered 410" if gone else f"{health.failures} attempts in a row failed"
        try:
            await self._registry.disable(webhook, reason)
        except (ConflictError, NotFoundError):
            return
        log.warning("webhook_disabled", tenant=webhook.tenant, webhook=webhook.id, reason=reason)

    async def _later(self, message: Msg, seconds: float) -> None:
        await message.nak(delay=seconds)
        raise LeaseLostError("handed back with a pause of its own")

    def _pause(self, tries: int) -> float:
        settings = self._settings
        pause: float = min(settings.first_delay_seconds * 2 ** (tries - 1), settings.longest_delay_seconds)
        return pause * random.uniform(0.8, 1.2)

    async def _attempt(self, webhook: Webhook, queued: DeliveryQueued) -> Attempt:
        at, started = time.time(), time.perf_counter()
        status, error = 0, ""
        try:
            target = await resolve(webhook.url, allow_http=self._settings.allow_http, allowed=self._settings.allowed_networks)
            headers = signing.headers(queued.delivery_id, int(at), queued.body, self._registry.keys_of(webhook))
            status = await self._post(target, queued.body, headers)
        except AddressRefusedError:
            error = "address_refused"
        except httpx.TimeoutException:
            error = "timeout"
        except (httpx.HTTPError, ssl.SSLError, OSError) as failure:
            error = "tls" if isinstance(failure.__cause__, ssl.SSLError) or "CERTIFICATE" in str(failure) else "connection"
        seconds = time.perf_counter() - started
        SECONDS.observe(seconds)
        ATTEMPTS.labels(outcome=error or str(status // 100) + "xx").inc()
        return Attempt(at, status, round(seconds * 1000, 1), error)

    async def _post(self, target: Target, body: bytes, headers: dict[str, str]) -> int:
        """Return the status; the connection goes to the address that was checked, whatever the name resolves to by now."""
        url = httpx.URL(target.url)
        pinned = url.copy_with(host=target.address)
        sent = {**headers, "host": url.netloc.decode(), "content-type": "application/json", "user-agent": "strata-webhooks"}
        timeout = self._settings.timeout_seconds
        async with httpx.AsyncClient(verify=self._tls, trust_env=False, follow_redirects=False, timeout=timeout) as client:
            request = client.build_request("POST", pinned, content=body, headers=sent, extensions={"sni_hostname": target.host})
            response = await client.send(request, stream=True)
            try:
                read = 0
                async for piece in response.aiter_raw():
                    read += len(piece)
                    if read > _MOST_BYTES:
                        break
            finally:
                await response.aclose()
            return response.status_code
