"""Both services together: what is put is found, what is deleted is not."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from chassis import rpc
from chassis.errors import ServiceError
from chassis.process import running
from retriever.main import start
from retriever.settings import Settings
from strata.gateway.v1.gateway_events_pb2 import Caller
from strata.ingestor.v1 import knowledge_service_pb2 as ingestor
from strata.ingestor.v1.knowledge_service_pb2_grpc import KnowledgeServiceStub
from strata.retriever.v1 import retriever_service_pb2 as pb
from strata.retriever.v1.retriever_service_pb2_grpc import RetrieverServiceStub
from testkit.nats import NatsServer

TEXT = "The swimming pool opens at seven in the morning."


async def _patiently(stub: KnowledgeServiceStub) -> None:
    for _ in range(3000):
        try:
            await rpc.call(stub.ListCollections, ingestor.ListCollectionsRequest(), timeout=180)
            return
        except ServiceError:
            await asyncio.sleep(0.1)
    raise TimeoutError("ingestor did not start")


async def test_a_put_is_found_and_a_delete_holds_at_once(bus: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The query after PutDocument finds the document, the one after DeleteDocument does not."""
    folder = tmp_path / "domains" / "desk" / "documents"
    folder.mkdir(parents=True)
    (folder / "notices.jsonl").write_text("")
    entry = {
        "name": "notices",
        "kind": "fluid",
        "path": "documents/notices.jsonl",
        "owner": "x",
        "review_date": "2030-01-01",
        "licence": "x",
    }
    (folder.parent / "domain.yaml").write_text(json.dumps({"name": "desk", "collections": [entry]}))
    monkeypatch.setenv("STRATA_HOME", str(tmp_path))
    settings, null = Settings(), asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "ingestor", env=dict(os.environ), stdout=null, stderr=null)
    try:
        async with (
            running("retriever", settings, start),
            rpc.channel(settings, "cli", "ingestor") as there,
            rpc.channel(settings, "cli", "retriever") as here,
        ):
            knowledge, retriever = KnowledgeServiceStub(there), RetrieverServiceStub(here)
            await _patiently(knowledge)

            async def found() -> list[str]:
                request = pb.RetrieveRequest(caller=Caller(tenant="acme"), query="When does the pool open?", collections=["notices"])
                return [passage.text for passage in (await rpc.call(retriever.Retrieve, request, timeout=180)).passages]

            assert await found() == []
            document = ingestor.Document(id="pool", title="Pool", text=TEXT)
            await rpc.call(knowledge.PutDocument, ingestor.PutDocumentRequest(collection="notices", document=document), timeout=180)
            assert await found() == [TEXT]
            await rpc.call(knowledge.DeleteDocument, ingestor.DeleteDocumentRequest(collection="notices", document_id="pool"), timeout=180)
            assert await found() == []
    finally:
        process.terminate()
        assert await process.wait() == 0
