"""An index with real vectors, and the running service over it."""

import datetime as dt
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from chassis import rpc
from chassis.process import running
from encoders import Encoder
from knowledge.lance import LanceIndex
from knowledge.preparation import cut, embed
from knowledge.schema import Chunk, Document, Kind
from retriever.main import start
from retriever.settings import Settings
from strata.retriever.v1.retriever_service_pb2_grpc import RetrieverServiceStub
from testkit.nats import NatsServer

LONG_AGO = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
Put = Callable[..., None]


@pytest.fixture(scope="session")
def encoder(encoders_loaded_once: None) -> Encoder:
    """Return the encoder, loaded once, also by the service."""
    return Encoder.load()


@pytest.fixture
def index(bus: NatsServer, encoder: Encoder) -> LanceIndex:
    """Return the empty index that the service will read."""
    return LanceIndex.create(Path(bus.state_dir) / "knowledge", encoder.identity.key())


@pytest.fixture
def put(index: LanceIndex, encoder: Encoder) -> Put:
    """Return what stores a document as ingestor would: its fields, and those of its chunks that differ."""

    def store(name: str, title: str, text: str, *, chunks: dict[str, Any] | None = None, **fields: Any) -> None:
        document = Document("notices", Kind.FLUID, name, title, text)
        document = replace(document, **{"effective_from": LONG_AGO, "labels": ("public",), **fields})
        pieces: list[Chunk] = [replace(chunk, **(chunks or {})) for chunk in cut(document, index.encoder, LONG_AGO)]
        index.replace(document.kind, {document.key: embed(pieces, encoder)})

    return store


@pytest_asyncio.fixture
async def stub(index: LanceIndex) -> AsyncIterator[RetrieverServiceStub]:
    """Return a client of the running service, over mutual TLS as orchestrator."""
    # What a loaded machine does late is still done.
    patient = {"rerank": {"budget_ms": 60_000}, "variants": {"budget_ms": 60_000}, "expand_budget_ms": 60_000}
    settings = Settings(ranking=patient)
    async with running("retriever", settings, start), rpc.channel(settings, "orchestrator", "retriever") as channel:
        yield RetrieverServiceStub(channel)
