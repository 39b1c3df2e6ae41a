"""Sends one delivery: resolved, pinned, signed, bounded in time and size, tried again with growing pauses, given up at a bound."""

import random
import ssl
import time
from collections import Counter as Tally
from contextlib import suppress
from dataclasses import replace

import httpx
from nats.aio.msg import Msg
from prometheus_client import Counter, Histogram

from chassis.errors import ConflictError, NotFoundError, UnavailableError
from chassis.logging import get_logger
from chassis.messaging import LeaseLostError
from chassis.tasks import in_time
from strata.webhooks.v1.webhooks_events_pb2 import DeliveryQueued
from webhooks import signing
from webhooks.addresses import AddressRefusedError, NameUnknownError, NameUnresolvedError, Target, resolve
from webhooks.journal import DELIVERED, FAILED, PENDING, Attempt, Entry, Journal
from webhooks.recording import Recorder
from webhooks.registry import TEST, Registry, Webhook
from webhooks.settings import Settings

log = get_logger("delivering")
ATTEMPTS = Counter("strata_webhooks_attempts_total", "Attempts by how they ended.", ["outcome"])
DELIVERIES = Counter("strata_webhooks_deliveries_total", "Deliveries by how they ended.", ["outcome"])
SECONDS = Histogram("strata_webhooks_attempt_duration_seconds", "Time of one attempt.")
# An answer's body is of no use; this much is read for the receiver to end in order.
_MOST_BYTES, _BODY_SECONDS = 16 * 1024, 1.0
# What waits for one address comes back ever more rarely, or a long queue would keep all workers busy with handing it back.
_BUSY_PAUSE, _LONGEST_BUSY_PAUSE = 1.0, 30.0
# The receiver wants nothing more: no repeat will help.
_GONE = 410


class Courier:
    """Works on the queue of deliveries."""

    def __init__(self, registry: Registry, journal: Journal, settings: Settings, recorder: Recorder) -> None:
        """Bind the parts."""
        self._registry, self._journal, self._settings, self._recorder = registry, journal, settings, recorder
        self._busy: Tally[str] = Tally()
        self._tls = ssl.create_default_context()

    async def handle(self, queued: DeliveryQueued, message: Msg) -> None:
        """Make one attempt; what failed comes back after a pause, what cannot succeed ends in the log."""
        try:
            webhook = self._registry.find(queued.tenant, queued.webhook_id)
        except NotFoundError:
            return
        if self._busy[webhook.key] >= self._settings.workers_each or self._busy[webhook.tenant] >= self._settings.workers_tenant:
            pause = min(_BUSY_PAUSE * 2 ** min(message.metadata.num_delivered - 1, 10), _LONGEST_BUSY_PAUSE)
            await self._later(message, pause * random.uniform(0.8, 1.2))
        # Nothing is awaited between the question and this, or all that come at once would find room.
        places = (webhook.key, webhook.tenant)
        self._busy.update(places)
        try:
            await self._deliver(webhook, queued, message)
        finally:
            self._busy -= Tally(places)

    async def _deliver(self, webhook: Webhook, queued: DeliveryQueued, message: Msg) -> None:
        entry = await self._entry(queued)
        if entry.state != PENDING:
            # It came back because this could not be recorded, or nobody heard that it was; a repeat changes nothing.
            await self._recorder.ended(webhook, entry)
            return
        if not webhook.enabled and queued.type != TEST:
            await self._over(webhook, entry, FAILED)
            return
        attempt = await self._attempt(webhook, queued)
        entry.add(attempt)
        health = self._registry.health_of(webhook)
        if 200 <= attempt.status < 300:
            health.failures = 0
            await self._over(webhook, entry, DELIVERED)
            return
        # A resolver that is away is no fault of the receiver's.
        health.failures += attempt.error != "name_unresolved"
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
        if entry is None:
            return Entry.of(queued)
        if entry.redriven < queued.redriven:
            return replace(Entry.of(queued), attempts=entry.attempts)
        return entry

    async def _over(self, webhook: Webhook, entry: Entry, state: str) -> None:
        entry.state = state
        DELIVERIES.labels(outcome=state).inc()
        # The log comes first: what could not be recorded comes back, and must be known not to be sent again.
        await self._journal.put(entry)
        await self._recorder.ended(webhook, entry)

    async def _maybe_disable(self, webhook: Webhook, attempt: Attempt) -> None:
        health = self._registry.health_of(webhook)
        gone = attempt.status == _GONE
        if not gone and health.failures < self._settings.disable_after:
            return
        reason = "the receiver answered 410" if gone else f"{health.failures} attempts in a row failed"
        try:
            await self._registry.disable(webhook, reason)
        except (ConflictError, NotFoundError, UnavailableError):
            # The next failure asks again.
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
            status = await in_time(self._settings.timeout_seconds, self._send(webhook, queued, int(at)))
        except NameUnknownError:
            error = "name_unknown"
        except AddressRefusedError:
            error = "address_refused"
        except NameUnresolvedError:
            error = "name_unresolved"
        except (TimeoutError, httpx.TimeoutException):
            error = "timeout"
        except (httpx.HTTPError, ssl.SSLError, OSError) as failure:
            error = "tls" if isinstance(failure.__cause__, ssl.SSLError) or "CERTIFICATE" in str(failure) else "connection"
        seconds = time.perf_counter() - started
        SECONDS.observe(seconds)
        ATTEMPTS.labels(outcome=error or str(status // 100) + "xx").inc()
        return Attempt(at, status, round(seconds * 1000, 1), error)

    async def _send(self, webhook: Webhook, queued: DeliveryQueued, timestamp: int) -> int:
        target = await resolve(webhook.url, allow_http=self._settings.allow_http, allowed=self._settings.allowed_networks)
        headers = signing.headers(queued.delivery_id, timestamp, queued.body, self._registry.keys_of(webhook))
        return await self._post(target, queued.body, headers)

    async def _post(self, target: Target, body: bytes, headers: dict[str, str]) -> int:
        """Return the status; the connection goes to the address that was checked, whatever the name resolves to by now."""
        url = httpx.URL(target.url)
        pinned = url.copy_with(host=target.address)
        sent = {**headers, "host": url.netloc.decode(), "content-type": "application/json", "user-agent": "strata-webhooks"}
        # The caller bounds the whole: httpx bounds each read, and a byte now and then is a read each.
        async with httpx.AsyncClient(verify=self._tls, trust_env=False, follow_redirects=False, timeout=None) as client:  # noqa: S113
            request = client.build_request("POST", pinned, content=body, headers=sent, extensions={"sni_hostname": target.host})
            response = await client.send(request, stream=True)
            try:
                with suppress(TimeoutError, httpx.HTTPError):
                    await in_time(_BODY_SECONDS, _drain(response))
            finally:
                await response.aclose()
            return response.status_code


async def _drain(response: httpx.Response) -> None:
    read = 0
    async for piece in response.aiter_raw():
        read += len(piece)
        if read > _MOST_BYTES:
            return
