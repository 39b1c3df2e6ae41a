"""Composition root of the gateway."""

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import uvicorn

from chassis import process, rpc
from chassis.logging import get_logger
from chassis.mirror import Mirror
from chassis.process import Runtime
from chassis.stops import Stops, following
from chassis.tasks import end, in_time
from contracts.streams import KEYS, STATUS
from gateway.admission import Admission, decode_status
from gateway.assembly import ReleaseKeys
from gateway.attempts import Attempts
from gateway.audit_trail import AuditTrail
from gateway.authentication import Authenticator, decode_key
from gateway.catalogue import Catalogue
from gateway.http.app import App
from gateway.http.chat import Chat, Parts
from gateway.http.exchange import Exchange
from gateway.http.governance import ERASURES, HOLDS, Governance
from gateway.http.knowledge import KNOWLEDGE, Knowledge
from gateway.http.lookups import Lookups
from gateway.http.moderation import GUARDRAILS, MODERATIONS, Moderation
from gateway.http.receipts import AUDIT_RECORDS, RECEIPTS, Receipts
from gateway.http.reviews import REVIEWS, Reviews
from gateway.http.sessions import SESSIONS_PATH, Sessions
from gateway.http.stops import STOPS_PATH, StopDesk
from gateway.http.webhooks import WEBHOOKS, Webhooks
from gateway.idempotency import Idempotency
from gateway.limits import Gate
from gateway.publishing import Publisher
from gateway.settings import Settings
from gateway.subscribers import Ingress
from gateway.tokens import TokenVerifier
from strata.audit.v1.audit_service_pb2_grpc import AuditServiceStub
from strata.guardrail.v1.guardrail_service_pb2_grpc import GuardrailServiceStub
from strata.inference.v1.inference_service_pb2_grpc import InferenceServiceStub
from strata.ingestor.v1.knowledge_service_pb2_grpc import KnowledgeServiceStub
from strata.review.v1.review_service_pb2_grpc import ReviewServiceStub
from strata.webhooks.v1.webhooks_service_pb2_grpc import WebhooksServiceStub

log = get_logger("gateway")
_SYNC_SECONDS = 30.0


class _Server(uvicorn.Server):
    """Leaves signals to the process that it runs in."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def _serving(app: App, settings: Settings) -> AsyncIterator[None]:
    """Answer HTTP until the block ends, then finish what is in flight; raise OSError when the port is taken."""
    listener = socket.create_server((settings.bind_host, settings.http_port("gateway")), backlog=1024)
    config = uvicorn.Config(
        cast("Any", app),
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(settings.drain_seconds),
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        # Whoever connects before the server accepts waits in the listener's queue.
        yield
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def _background(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(coroutine) for coroutine in work]
    try:
        yield
    finally:
        await end(*tasks)


def _tame_collector() -> None:
    """Leave what is loaded alone: requests make few cycles, and walking everything for them costs a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@dataclass(frozen=True)
class _Stubs:
    """The services that are asked."""

    inference: InferenceServiceStub
    audit: AuditServiceStub
    ingestor: KnowledgeServiceStub
    review: ReviewServiceStub
    guardrail: GuardrailServiceStub
    webhooks: WebhooksServiceStub


@asynccontextmanager
async def _connected(settings: Settings) -> AsyncIterator[_Stubs]:
    open_to = partial(rpc.channel, settings, "gateway")
    async with (
        open_to("inference") as inference,
        open_to("audit") as audit,
        open_to("ingestor") as ingestor,
        open_to("review") as review,
        open_to("guardrail") as guardrail,
        open_to("webhooks") as webhooks,
    ):
        yield _Stubs(
            InferenceServiceStub(inference),
            AuditServiceStub(audit),
            KnowledgeServiceStub(ingestor),
            ReviewServiceStub(review),
            GuardrailServiceStub(guardrail),
            WebhooksServiceStub(webhooks),
        )


def _areas(parts: Parts, stubs: _Stubs, stop_desk: StopDesk) -> dict[str, Callable[[Exchange], Awaitable[None]]]:
    """Return who answers below which path."""
    moderation = Moderation(parts, stubs.guardrail)
    return {
        KNOWLEDGE: Knowledge(parts, stubs.ingestor),
        STOPS_PATH: stop_desk,
        MODERATIONS: moderation,
        SESSIONS_PATH: Sessions(parts, stubs.guardrail),
        WEBHOOKS: Webhooks(parts, stubs.webhooks),
        GUARDRAILS: moderation,
        **dict.fromkeys((RECEIPTS, AUDIT_RECORDS), Receipts(parts, stubs.audit)),
        **dict.fromkeys((ERASURES, HOLDS), Governance(parts, stubs.audit)),
        REVIEWS: Reviews(parts, stubs.review),
    }


@asynccontextmanager
async def start(runtime: Runtime) -> AsyncIterator[None]:
    """Wire the gateway and serve until the block ends."""
    async with following(runtime) as stops, _connected(cast("Settings", runtime.settings)) as stubs, _started(runtime, stops, stubs):
        yield


@asynccontextmanager
async def _started(runtime: Runtime, stops: Stops, stubs: _Stubs) -> AsyncIterator[None]:
    settings, bus = cast("Settings", runtime.settings), runtime.bus
    catalogue = Catalogue(settings.repository_dir / "domains")
    keys = Mirror(bus, KEYS, partial(decode_key, catalogue), refresh_seconds=settings.mirror_refresh_seconds)
    status = Mirror(bus, STATUS, decode_status, refresh_seconds=settings.mirror_refresh_seconds)
    tokens = TokenVerifier(settings.jwt) if settings.jwt else None
    publisher = Publisher(bus)
    await publisher.open()
    trail = AuditTrail(publisher)
    attempts = Attempts(bus, trail, abandoned_seconds=settings.abandoned_seconds, refresh_seconds=settings.mirror_refresh_seconds)
    parts = Parts(
        settings=settings,
        bus=bus,
        authenticator=Authenticator(keys, catalogue, tokens),
        catalogue=catalogue,
        gate=Gate(settings),
        admission=Admission(publisher, trail, status),
        idempotency=Idempotency(bus, settings.takeover_seconds),
        keys=ReleaseKeys(settings.state_dir),
        trail=trail,
        stops=stops,
    )
    runtime.health.checks["keys"] = keys.synced.is_set
    runtime.health.checks["status"] = status.synced.is_set
    follow = catalogue.follow(
        stubs.inference.ListModels, every_seconds=settings.models_refresh_seconds, timeout_seconds=settings.rpc_timeout_seconds
    )
    stop_desk = StopDesk(parts, attempts)
    app = App(runtime.health, Chat(parts), Lookups(parts, stubs.audit.GetTrace), _areas(parts, stubs, stop_desk))
    sweeping = (attempts.mirror.run(), attempts.sweep(stop_desk.outcome))
    async with _background(keys.run(), status.run(), follow, *sweeping, *([tokens.run()] if tokens else [])):
        await in_time(_SYNC_SECONDS, asyncio.gather(keys.synced.wait(), status.synced.wait()))
        async with _reading(parts), _serving(app, settings):
            _tame_collector()
            yield


@asynccontextmanager
async def _reading(parts: Parts) -> AsyncIterator[None]:
    """Take requests from the bus until the block ends, then finish them and what must be recorded of them."""
    consumer = Ingress(parts, parts.bus).consumer()
    reading = asyncio.create_task(consumer.run())
    try:
        yield
    finally:
        await consumer.stop(parts.settings.drain_seconds)
        await reading
        await parts.trail.drain(parts.settings.drain_seconds)


def main() -> None:
    """Be the gateway until SIGTERM."""
    process.run("gateway", Settings, start, serve_health=False)
