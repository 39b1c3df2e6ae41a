"""The service as a process: gRPC over mutual TLS, events and audit on the bus, and what a kill leaves."""

import asyncio
import os
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from nats.aio.client import Client

from chassis import rpc
from chassis.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError
from chassis.messaging import decode
from chassis.process import running
from contracts.subjects import AUDIT, KNOWLEDGE
from encoders import Encoder
from ingestor.main import start
from ingestor.settings import Settings
from knowledge.index import IndexMissingError
from knowledge.lance import LanceIndex
from knowledge.schema import Kind
from strata.ingestor.v1 import knowledge_service_pb2 as pb
from strata.ingestor.v1.knowledge_service_pb2_grpc import KnowledgeServiceStub
from testkit.nats import NatsServer

ROWS: list[dict[str, object]] = [{"id": f"notice-{n}", "text": f"Notice number {n} about floor {n}."} for n in range(40)]


@pytest.fixture
def settings(bus: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return settings that read the domains under `tmp_path`."""
    monkeypatch.setenv("STRATA_HOME", str(tmp_path))
    return Settings(batch_documents=4)


async def _messages(admin: Client, subject: Any, count: int) -> list[Any]:
    subscription = await admin.jetstream().subscribe(subject.pattern, ordered_consumer=True)
    return [decode(subject, (await subscription.next_msg(timeout=180)).data) for _ in range(count)]


def _document(version: str, date: str, text: str) -> pb.Document:
    document = pb.Document(id="refunds", title="Refunds", text=text, version=version)
    document.effective_from.FromJsonString(f"{date}T00:00:00Z")
    return document


async def test_put_supersede_withdraw_and_list(settings: Settings, declare: Any, admin: Client) -> None:
    """Each change is searchable when the call returns, announced once, and recorded; refusals carry their status."""
    declare({"rules": ("anchored", []), "notices": ("fluid", ROWS[:1])})
    async with running("ingestor", settings, start), rpc.channel(settings, "cli", "ingestor") as channel:
        stub = KnowledgeServiceStub(channel)

        async def put(collection: str, document: pb.Document) -> pb.PutDocumentResponse:
            request = pb.PutDocumentRequest(collection=collection, document=document)
            return await rpc.call(stub.PutDocument, request, timeout=180)

        assert (await put("rules", _document("1", "2024-01-01", "Ten days."))).changed
        assert (await put("rules", _document("2", "2025-01-01", "Five days."))).supersedes == "1"
        assert not (await put("rules", _document("2", "2025-01-01", "Five days."))).changed
        with pytest.raises(FailedPreconditionError, match="same date"):
            await put("rules", _document("3", "2025-01-01", "One day."))
        with pytest.raises(InvalidArgumentError, match="effective_from"):
            await put("rules", pb.Document(id="x", title="x", text="x"))
        outside = pb.Document(id="x", title="x", text="x", effective_from=Timestamp(seconds=10**12))
        with pytest.raises(InvalidArgumentError, match="'effective_from' must be a time"):
            await put("rules", outside)
        with pytest.raises(NotFoundError, match=r"known: \['notices', 'rules'\]"):
            await put("nowhere", pb.Document(id="x", title="x", text="x"))
        withdraw = pb.DeleteDocumentRequest(collection="rules", document_id="refunds", version="2", reason="mistake")
        assert (await rpc.call(stub.DeleteDocument, withdraw, timeout=180)).changed
        listed = await rpc.call(stub.ListCollections, pb.ListCollectionsRequest(), timeout=180)
        assert {c.name: (c.kind, c.documents, c.chunks) for c in listed.collections} == {
            "rules": ("anchored", 1, 2),
            "notices": ("fluid", 1, 1),
        }
        events = await _messages(admin, KNOWLEDGE, 4)
        records = await _messages(admin, AUDIT, 4)
    assert [(e.document_id, e.change, e.version, e.superseded_version) for e in events] == [
        ("notice-0", "upserted", "", ""),
        ("refunds", "upserted", "1", ""),
        ("refunds", "upserted", "2", "1"),
        ("refunds", "deleted", "1", "2"),
    ]
    assert {(r.step, r.service, r.outcome) for r in records} == {("knowledge", "ingestor", "succeeded")}
    assert records[-1].details["reason"] == "mistake"


async def test_a_folder_with_a_bad_document_still_starts(settings: Settings, declare: Any, admin: Client) -> None:
    """The good documents are served, and the bad one leaves an audit record that says why."""
    declare(
        {"rules": ("anchored", [{"id": "undated", "text": "No date."}, {"id": "good", "text": "Yes.", "effective_from": "2024-01-01"}])}
    )
    async with running("ingestor", settings, start):
        records = await _messages(admin, AUDIT, 2)
    refused = next(record for record in records if record.outcome == "rejected")
    assert "'undated': field 'effective_from' is missing" in refused.details["message"]


async def _started(environment: dict[str, str]) -> asyncio.subprocess.Process:
    null = asyncio.subprocess.DEVNULL
    return await asyncio.create_subprocess_exec(sys.executable, "-m", "ingestor", env=environment, stdout=null, stderr=null)


def _stored(folder: Path, key: str) -> list[str]:
    try:
        index = LanceIndex.open(folder, key)
    except IndexMissingError:
        return []
    found = index.documents(Kind.FLUID, [f"notices/{row['id']}" for row in ROWS])
    return [chunk.chunk_id for chunks in found.values() for chunk in chunks]


async def test_a_kill_while_loading_loses_and_doubles_nothing(
    settings: Settings, declare: Any, admin: Client, real_encoder: Encoder
) -> None:
    """Killed in the middle of the first load, the next start completes it; every document is announced."""
    declare({"notices": ("fluid", ROWS)})
    environment = {**os.environ, "STRATA_INGESTOR_BATCH_DOCUMENTS": "1"}
    folder, key = settings.index_dir, real_encoder.identity.key()
    process = await _started(environment)
    while not await asyncio.to_thread(_stored, folder, key):
        assert process.returncode is None
        await asyncio.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    assert 0 < len(_stored(folder, key)) < len(ROWS)
    async with running("ingestor", settings, start):
        stored = _stored(folder, key)
        events = await _messages(admin, KNOWLEDGE, len(ROWS))
    assert sorted(stored) == sorted(f"notices/{row['id']}@#0" for row in ROWS)
    assert {event.document_id for event in events} == {row["id"] for row in ROWS}


async def test_a_version_takes_effect_while_the_service_runs(settings: Settings, declare: Any, admin: Client) -> None:
    """The event comes at its moment and names the version that is no longer in force; the stream holds it once."""
    declare({"rules": ("anchored", []), "notices": ("fluid", ROWS[:1])})
    quick = settings.model_copy(update={"flush_seconds": 0.05})
    async with running("ingestor", quick, start), rpc.channel(settings, "cli", "ingestor") as channel:
        stub = KnowledgeServiceStub(channel)

        async def put(document: pb.Document) -> None:
            await rpc.call(stub.PutDocument, pb.PutDocumentRequest(collection="rules", document=document), timeout=180)

        await put(_document("1", "2024-01-01", "Ten days."))
        # As late as it can be said: on a loaded machine a document takes its time.
        at = datetime.now(UTC) + timedelta(seconds=4)
        later = pb.Document(id="refunds", title="Refunds", text="Five days.", version="2")
        later.effective_from.FromDatetime(at)
        await put(later)
        events = await _messages(admin, KNOWLEDGE, 4)
        assert datetime.now(UTC) >= at
        await asyncio.sleep(0.2)
    last = events[-1]
    assert (last.change, last.version, last.superseded_version) == ("superseded", "2", "1")
    assert last.searchable_at.ToDatetime(UTC) == at
    state = (await admin.jetstream().stream_info("KNOWLEDGE")).state
    message = await admin.jetstream().get_msg("KNOWLEDGE", state.last_seq)
    assert (state.messages, message.headers["Nats-Msg-Id"]) == (4, "knowledge/effect/rules/refunds/2")
