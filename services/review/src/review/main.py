"""The composition root: escalations in, reviewers over gRPC, a sweeper beside."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from chassis import process, rpc
from chassis.consuming import consuming
from chassis.erasing import erasing
from chassis.messaging import Consumer
from chassis.rpc import rpc_server
from chassis.tasks import end, in_time
from contracts.streams import REVIEW_ERASURES, REVIEW_INTAKE
from contracts.subjects import ESCALATION
from review.board import Board
from review.desk import Desk, Peers
from review.erasing import Forgetting
from review.intake import Intake
from review.servicer import ReviewServicer
from review.settings import Settings
from review.store import Store
from review.sweeping import Sweeper
from strata.audit.v1.audit_service_pb2_grpc import AuditServiceStub
from strata.guardrail.v1.guardrail_service_pb2_grpc import GuardrailServiceStub
from strata.review.v1.review_service_pb2_grpc import add_ReviewServiceServicer_to_server

NAME = "review"


@asynccontextmanager
async def start(runtime: process.Runtime) -> AsyncIterator[None]:
    """Serve until the block ends."""
    settings, bus = runtime.settings, runtime.bus
    if not isinstance(settings, Settings):
        raise TypeError(settings)
    board = Board(bus, refresh_seconds=settings.mirror_refresh_seconds)
    store = Store(bus, board)
    intake = Intake(bus, store, settings)
    runtime.health.checks["queue"] = board.synced.is_set
    async with rpc.channel(settings, NAME, "audit") as audit, rpc.channel(settings, NAME, "guardrail") as guardrail:
        peers = Peers(AuditServiceStub(audit).GetTrace, GuardrailServiceStub(guardrail).CheckOutput)
        servicer = ReviewServicer(Desk(bus, board, store, intake, peers, settings), bus)
        consumer = Consumer(bus, REVIEW_INTAKE, ESCALATION, intake.handle, workers=settings.workers)
        async with _background(board.run(), Sweeper(bus, board, store, settings).run()):
            await in_time(30, board.synced.wait())
            async with consuming(consumer, drain_seconds=settings.drain_seconds) as (reading,):
                runtime.health.checks["reads_escalations"] = lambda: not reading.done()
                async with (
                    erasing(bus, REVIEW_ERASURES, Forgetting(bus, store).forget, drain_seconds=settings.drain_seconds),
                    rpc_server(settings, NAME, partial(add_ReviewServiceServicer_to_server, servicer)),
                ):
                    yield


@asynccontextmanager
async def _background(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(coroutine) for coroutine in work]
    try:
        yield
    finally:
        await end(*tasks)


def main() -> None:
    """Be review until SIGTERM."""
    process.run(NAME, Settings, start)
