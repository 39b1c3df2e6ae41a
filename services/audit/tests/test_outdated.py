"""A version that is superseded names the answers that rest on it."""

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio
from nats.aio.client import Client
from nats.aio.msg import Msg

from audit.main import start
from audit.settings import Settings
from chassis.messaging import decode, encode
from chassis.process import running
from chassis.tasks import in_time
from contracts.subjects import AUDIT, KNOWLEDGE, OUTDATED
from strata.audit.v1.audit_events_pb2 import AnswersOutdated, StepRecorded
from strata.ingestor.v1.ingestor_events_pb2 import KnowledgeChanged
from testkit.nats import NatsServer

from .running import until_acknowledged

Heard = asyncio.Queue[AnswersOutdated]


async def _answered(admin: Client, tenant: str, request: str, document: str, version: str) -> None:
    record = StepRecorded(record_id=f"release/{request}", tenant=tenant, request_id=request, step="release", outcome="succeeded")
    record.details.update({"citations": [{"document": document, "version": version}]})
    await admin.jetstream().publish(AUDIT.at(tenant=tenant, step="release"), encode(AUDIT, record))


async def _superseded(admin: Client, document: str, old: str, new: str) -> None:
    change = KnowledgeChanged(collection="rules", document_id=document, version=new, superseded_version=old, change="upserted")
    change.searchable_at.GetCurrentTime()
    await admin.jetstream().publish(KNOWLEDGE.at(kind="anchored", event="upserted"), encode(KNOWLEDGE, change))


@pytest_asyncio.fixture
async def heard(bus: NatsServer, admin: Client) -> AsyncIterator[Heard]:
    """Return the events as they arrive."""
    queue: Heard = asyncio.Queue()

    async def take(message: Msg) -> None:
        queue.put_nowait(decode(OUTDATED, message.data))

    subscription = await admin.subscribe(OUTDATED.pattern, cb=take)
    yield queue
    await subscription.unsubscribe()


async def test_each_tenant_learns_of_its_own_answers(bus: NatsServer, admin: Client, heard: Heard) -> None:
    """Answers that cited the superseded version are named, to their own tenant; answers from other versions are not."""
    async with running("audit", Settings(min_free_bytes=0), start):
        await _answered(admin, "acme", "a1", "returns", "1")
        await _answered(admin, "acme", "a2", "returns", "1")
        await _answered(admin, "rival", "b1", "returns", "1")
        await _answered(admin, "acme", "a3", "returns", "2")
        await until_acknowledged(admin)
        await _superseded(admin, "returns", "1", "2")
        events = [await in_time(180, heard.get()) for _ in range(2)]

    assert {event.tenant: list(event.request_ids) for event in events} == {"acme": ["a1", "a2"], "rival": ["b1"]}
    assert {(event.superseded_version, event.version) for event in events} == {("1", "2")}


async def test_a_change_while_audit_was_away_is_not_lost(bus: NatsServer, admin: Client, heard: Heard) -> None:
    """After a restart the log is read again and the change that waited is announced."""
    async with running("audit", Settings(min_free_bytes=0), start):
        await _answered(admin, "acme", "a1", "returns", "1")
        await until_acknowledged(admin)
    await _superseded(admin, "returns", "1", "2")
    assert heard.empty()

    async with running("audit", Settings(min_free_bytes=0), start):
        event = await in_time(180, heard.get())

    assert list(event.request_ids) == ["a1"]
