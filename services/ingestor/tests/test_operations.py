"""The service with a real PostgreSQL behind it: what operators see and mend, and another encoder under way."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psycopg2
import pytest
import yaml
from nats.aio.client import Client

from chassis import rpc
from chassis.errors import FailedPreconditionError, InvalidArgumentError
from chassis.process import running
from contracts.answers import ANSWERS_STREAM, answer_subject, document_token
from encoders import Encoder
from encoders.encoder import default_directory
from ingestor.main import start
from ingestor.settings import Settings
from knowledge.generations import Generations
from knowledge.lance import LanceIndex
from knowledge.schema import Kind
from strata.ingestor.v1 import knowledge_service_pb2 as pb
from strata.ingestor.v1.knowledge_service_pb2_grpc import KnowledgeServiceStub
from testkit.encoders import other_encoder
from testkit.nats import NatsServer
from testkit.postgres import PostgresServer

TABLE = {
    "key": ["id"],
    "collection": "products",
    "document": {"id": "{{ id }}", "title": "{{ name }}", "text": "{{ name }} costs {{ price }} and is {{ note }}.", "labels": "public"},
}


class Shop:
    """A table of products."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self._connection = psycopg2.connect(dsn)
        self._connection.autocommit = True

    def run(self, statement: str, *values: Any) -> None:
        """Execute one statement in a transaction of its own."""
        with self._connection.cursor() as cursor:
            cursor.execute(statement, values)

    def asked(self, query: str) -> list[Any]:
        """Return the rows that a query finds."""
        with self._connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchall()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@pytest.fixture
def shop(postgres: PostgresServer) -> Iterator[Shop]:
    """Return a table of twenty products."""
    made = Shop(postgres.create_database(f"d{uuid.uuid4().hex[:12]}"))
    made.run("CREATE TABLE products (id int PRIMARY KEY, name text, price numeric(8,2), note text)")
    for number in range(20):
        made.run("INSERT INTO products VALUES (%s, %s, %s, %s)", number, f"Kettle {number}", number + 0.5, "blue")
    yield made
    made.run("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active")
    while made.asked("SELECT 1 FROM pg_replication_slots WHERE active AND database = current_database()"):
        time.sleep(0.05)
    made.run("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()")
    made.close()


@pytest.fixture
def settings(bus: NatsServer, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, declare: Any) -> Settings:
    """Return settings of a service that follows the table."""
    declare(
        {
            "products": ("fluid", []),
            "rules": ("anchored", [{"id": "r", "text": "Kettles may be returned.", "effective_from": "2024-01-01"}]),
        }
    )
    source = {
        "name": "shop",
        "driver": "postgres",
        "dsn_env": "SHOP_DSN",
        "freshness_sla_seconds": 30,
        "tables": {"public.products": TABLE},
    }
    (tmp_path / "domains" / "desk" / "sources.yaml").write_text(yaml.safe_dump({"sources": [source]}))
    monkeypatch.setenv("SHOP_DSN", shop.dsn)
    monkeypatch.setenv("STRATA_HOME", str(tmp_path))
    return Settings()


async def _until(stub: KnowledgeServiceStub, holds: Any) -> pb.GetStatusResponse:
    """Return the first status that is as wanted."""
    async with asyncio.timeout(240):
        while True:
            status: pb.GetStatusResponse = await rpc.call(stub.GetStatus, pb.GetStatusRequest(), timeout=180)
            if holds(status):
                return status
            await asyncio.sleep(0.1)


def _documents(status: pb.GetStatusResponse) -> int:
    return next(collection.documents for collection in status.collections if collection.name == "products")


def _settled(documents: int) -> Any:
    return lambda status: (
        _documents(status) == documents and status.sources[0].without_vector == 0 and status.sources[0].state == "streaming"
    )


async def _by_hand(stub: KnowledgeServiceStub) -> list[str]:
    """Return with which codes a put, an upload and a withdrawal of a row that a table feeds are refused."""

    async def pieces() -> AsyncIterator[pb.UploadDocumentRequest]:
        yield pb.UploadDocumentRequest(header=pb.UploadHeader(collection="products", file_name="3.md"))

    put = pb.PutDocumentRequest(collection="products", document=pb.Document(id="3", title="Kettle", text="A kettle."))
    delete = pb.DeleteDocumentRequest(collection="products", document_id="3")
    codes = []
    for call in (
        rpc.call(stub.PutDocument, put, timeout=180),
        rpc.send(stub.UploadDocument, pieces(), timeout=180),
        rpc.call(stub.DeleteDocument, delete, timeout=180),
    ):
        with pytest.raises(FailedPreconditionError, match="change the row") as caught:
            await call
        codes.append(caught.value.code)
    return codes


async def test_a_table_is_followed_mended_and_its_deletions_proven(settings: Settings, shop: Shop, admin: Client) -> None:
    """Snapshot and changes arrive; what was altered by hand is found and mended without embedding; a deletion is absent everywhere.

    What the next change would undo is not done by hand at all.
    """
    async with running("ingestor", settings, start), rpc.channel(settings, "cli", "ingestor") as channel:
        stub = KnowledgeServiceStub(channel)
        before = await _until(stub, _settled(20))
        shop.run("UPDATE products SET note = 'red' WHERE id = 3")
        shop.run("DELETE FROM products WHERE id = 4")
        after = await _until(stub, lambda status: _settled(19)(status) and status.sources[0].position > before.sources[0].position)
        index = LanceIndex.create(settings.index_dir, after.encoder)
        index.replace(Kind.FLUID, {"products/5": [], "products/6": []})

        mended = await rpc.call(stub.Reconcile, pb.ReconcileRequest(source="shop"), timeout=180)
        again = await rpc.call(stub.Reconcile, pb.ReconcileRequest(), timeout=180)
        await _until(stub, _settled(19))
        name = answer_subject("acme", "k" * 64, [document_token("products", "4"), document_token("products", "5")])
        await admin.jetstream().publish(name, b"{}")
        quoted = await rpc.call(stub.ProveDeletion, pb.ProveDeletionRequest(collection="products", document_id="4"), timeout=180)
        await admin.jetstream().purge_stream(ANSWERS_STREAM)
        gone = await rpc.call(stub.ProveDeletion, pb.ProveDeletionRequest(collection="products", document_id="4"), timeout=180)
        there = await rpc.call(stub.ProveDeletion, pb.ProveDeletionRequest(collection="products", document_id="3"), timeout=180)
        refused = await _by_hand(stub)

    assert refused == ["fed_collection"] * 3
    source = after.sources[0]
    assert (source.name, list(source.collections), source.sla_holds, source.problem) == ("shop", ["products"], True, "")
    assert source.applied >= 22
    assert "red" in index.documents(Kind.FLUID, ["products/3"])["products/3"][0].text
    assert (mended.missing, mended.repaired) == (2, 2)
    assert (again.missing, again.surplus, again.stale) == (0, 0, 0)
    assert {place.place: place.absent for place in gone.places if "versions" not in place.place} == {
        f"index fluid of {after.encoder}": True,
        f"index anchored of {after.encoder}": True,
        "ledger ledger.db": True,
        "ledger sources.db": True,
        "answers kept in ANSWERS": True,
        "stream CDC": False,
    }
    # Older states of the table go at the first compaction that comes a minute later.
    left = [place.place for place in quoted.places if not place.absent and "versions" not in place.place]
    assert left == ["stream CDC", "answers kept in ANSWERS"]
    # What the stream says of a deleted row is still there, and nobody is told otherwise.
    (stream,) = [place for place in gone.places if place.place == "stream CDC"]
    assert stream.until.ToDatetime() - gone.deleted_at.ToDatetime() == timedelta(days=7)
    assert not gone.absent
    assert not there.absent


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an encoder with other weights."""
    return other_encoder(default_directory(), tmp_path_factory.mktemp("other") / "model")


async def test_the_encoder_is_changed_under_load_and_back(settings: Settings, shop: Shop, other: Path) -> None:
    """While rows change, another encoder takes over and the first comes back; nothing is lost, no vector is of the wrong space."""
    stopped = asyncio.Event()

    async def change() -> int:
        number = 100
        # Not for as long as it takes: on a slow machine the rows would grow faster than they are embedded.
        while not stopped.is_set() and number < 180:
            await asyncio.to_thread(shop.run, "INSERT INTO products VALUES (%s, %s, 1, 'new')", number, f"Lamp {number}")
            number += 1
            await asyncio.sleep(0.05)
        return number - 100

    async with running("ingestor", settings, start), rpc.channel(settings, "cli", "ingestor") as channel:
        stub = KnowledgeServiceStub(channel)
        first = await _until(stub, _settled(20))
        changing = asyncio.create_task(change())
        switched = await rpc.call(stub.Reembed, pb.ReembedRequest(directory=str(other)), timeout=900)
        stopped.set()
        added = await changing
        await _until(stub, _settled(20 + added))
        built = LanceIndex.open(settings.index_dir, switched.encoder)
        async with asyncio.timeout(240):
            while built.without_vector(Kind.FLUID, 1):  # noqa: ASYNC110 - another thread's lane
                await asyncio.sleep(0.1)
        chunks = [chunk for parts in built.documents(Kind.FLUID, [f"products/{100 + n}" for n in range(added)]).values() for chunk in parts]
        back = await rpc.call(stub.Reembed, pb.ReembedRequest(rollback=True), timeout=900)
        last = await _until(stub, _settled(20 + added))
        with pytest.raises(InvalidArgumentError) as caught:
            await rpc.call(stub.Reembed, pb.ReembedRequest(directory="/nowhere/at/all"), timeout=180)

    assert (switched.previous, back.encoder, last.encoder) == (first.encoder, first.encoder, first.encoder)
    assert back.embedded <= added
    assert len(chunks) == added
    expected = Encoder.load(other).encode([chunk.search_text for chunk in chunks])
    assert np.allclose(expected, np.array([chunk.vector for chunk in chunks]), atol=1e-4)
    state = Generations(settings.index_dir).read()
    assert state is not None
    assert state.serving.encoder == first.encoder
    assert caught.value.code == "encoder_unavailable"
