"""The service over mutual TLS: who finds what, and when nothing is found."""

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from chassis import rpc
from chassis.errors import FailedPreconditionError, InvalidArgumentError, UnavailableError
from chassis.process import running
from encoders import Encoder
from knowledge.lance import LanceIndex
from knowledge.schema import Kind
from retriever.main import start
from retriever.settings import Settings
from strata.gateway.v1.gateway_events_pb2 import Caller
from strata.retriever.v1 import retriever_service_pb2 as pb
from strata.retriever.v1.retriever_service_pb2_grpc import RetrieverServiceStub
from testkit.nats import NatsServer

QUESTION = "When does the swimming pool open?"
POOL = "The swimming pool opens at seven in the morning from Monday to Saturday."


def _request(query: str = QUESTION, **fields: Any) -> pb.RetrieveRequest:
    caller = Caller(tenant=fields.pop("tenant", "acme"), role="app", labels=fields.pop("labels", ["public"]))
    return pb.RetrieveRequest(**{"caller": caller, "query": query, "collections": ["notices"], "top_k": 10, **fields})


async def _retrieve(stub: RetrieverServiceStub, query: str = QUESTION, **fields: Any) -> pb.RetrieveResponse:
    as_of = fields.pop("as_of", "")
    request = _request(query, **fields)
    if isinstance(as_of, Timestamp):
        request.as_of.CopyFrom(as_of)
    elif as_of:
        request.as_of.FromJsonString(f"{as_of}T00:00:00Z")
    return await rpc.call(stub.Retrieve, request, timeout=180)


async def _ids(stub: RetrieverServiceStub, query: str = QUESTION, **fields: Any) -> list[str]:
    return [passage.document_id for passage in (await _retrieve(stub, query, **fields)).passages]


async def test_a_passage_carries_what_a_citation_needs(stub: RetrieverServiceStub, put: Any, encoder: Encoder) -> None:
    """Title, version, date, offsets into the stored text, hash and scores are there; so are the index's versions and times."""
    text = f"# Pool\n\n{POOL}"
    put(
        "pool", "Opening hours", text, version="7", effective_from=dt.datetime(2026, 3, 2, tzinfo=dt.UTC), source="https://example.org/pool"
    )
    response = await _retrieve(stub)
    (passage,) = response.passages
    assert (passage.title, passage.version, passage.date, passage.source) == (
        "Opening hours",
        "7",
        "2026-03-02",
        "https://example.org/pool",
    )
    assert text[passage.start : passage.end] == passage.text
    assert len(passage.document_sha256) == 64
    assert 0.5 < passage.score <= 1.0
    assert passage.lexical_score > 0
    assert passage.vector_score > 0.4
    assert response.encoder == encoder.identity.key()
    assert response.index_versions["fluid"] > 0
    assert set(response.latency_ms) == {"encode", "lexical", "vector", "fuse", "rerank"}


async def test_nobody_finds_what_they_may_not_see(stub: RetrieverServiceStub, put: Any) -> None:
    """Another tenant's and a restricted document are not found, not even by their exact text, nor named in any field."""
    put("open", "Pool", POOL)
    put("theirs", "Pool", POOL, tenant="rival")
    put("staff", "Pool", POOL, labels=("staff",))
    put("both", "Pool", POOL, labels=("public", "staff"))
    put("elsewhere", "Pool", POOL, collection="plans")
    assert await _ids(stub, POOL) == ["open"]
    assert sorted(await _ids(stub, POOL, labels=["public", "staff"])) == ["both", "open", "staff"]
    assert sorted(await _ids(stub, POOL, tenant="rival")) == ["open", "theirs"]
    assert await _ids(stub, POOL, labels=[]) == []
    assert await _ids(stub, POOL, collections=[]) == []
    assert await _ids(stub, POOL, tenant="x' OR '1'='1", labels=["public') OR ('1'='1"], collections=["notices') --"]) == []


async def test_metadata_filters_hold_in_both_legs(stub: RetrieverServiceStub, put: Any) -> None:
    """Only documents that carry every pair are found."""
    put("north", "Pool", POOL, metadata={"site": "north", "floor": "1"})
    put("south", "Pool", POOL, metadata={"site": "south"})
    assert await _ids(stub, filters={"site": "north", "floor": "1"}) == ["north"]
    assert await _ids(stub, filters={"site": "south", "floor": "1"}) == []


async def test_versions_answer_for_their_time(stub: RetrieverServiceStub, put: Any) -> None:
    """Now finds the version in force; an earlier time finds the one of then; before the first there is none."""
    second = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
    anchored = {"kind": Kind.ANCHORED, "document_id": "pool"}
    first = {"effective_from": dt.datetime(2024, 1, 1, tzinfo=dt.UTC), "version": "1", "tenant": "acme"}
    put("a", "Pool", POOL, **anchored, **first, chunks={"superseded_at": second})
    put("b", "Pool", POOL.replace("seven", "nine"), **anchored, effective_from=second, version="2")
    assert [passage.version for passage in (await _retrieve(stub)).passages] == ["2"]
    assert [passage.version for passage in (await _retrieve(stub, as_of="2024-06-01")).passages] == ["1"]
    assert (await _retrieve(stub, as_of="2023-06-01")).passages == []


async def test_expiry_excludes(stub: RetrieverServiceStub, put: Any) -> None:
    """An expired document is not found, however well it matches."""
    put("old", "Pool", POOL, expires_at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
    assert await _ids(stub, POOL) == []
    put("old", "Pool", POOL, expires_at=dt.datetime(2126, 1, 1, tzinfo=dt.UTC))
    assert await _ids(stub, POOL) == ["old"]


async def test_a_change_holds_from_the_next_query(stub: RetrieverServiceStub, put: Any, index: LanceIndex) -> None:
    """A put, a tightened access and a deletion are seen by the very next query."""
    put("pool", "Pool", POOL)
    assert await _ids(stub) == ["pool"]
    put("pool", "Pool", POOL, labels=("staff",))
    assert await _ids(stub) == []
    put("pool", "Pool", POOL)
    assert await _ids(stub) == ["pool"]
    index.replace(Kind.FLUID, {"notices/pool": []})
    assert await _ids(stub) == []


async def test_a_place_or_a_time_beyond_all_others_is_no_error(stub: RetrieverServiceStub, put: Any) -> None:
    """The largest place of a source shows its present; the first moment of the calendar shows nothing."""
    put("pool", "Pool", POOL)
    assert await _ids(stub, positions={"notices": 2**64 - 1}) == ["pool"]
    assert await _ids(stub, as_of="0001-01-01") == []


@pytest.mark.parametrize("query", ["What is the capital of France?", "Who won the football cup final last night?", "???"])
async def test_nothing_relevant_means_nothing_returned(stub: RetrieverServiceStub, put: Any, query: str) -> None:
    """A question that the knowledge has nothing about brings no passage, though every search has a best hit."""
    put("pool", "Pool", POOL)
    put("fever", "Fever", "Children with a fever must not take aspirin.")
    assert await _ids(stub, query) == []


async def test_one_document_does_not_fill_the_answer(stub: RetrieverServiceStub, put: Any) -> None:
    """At most two chunks of a document are returned."""
    section = " ".join([POOL] * 16)
    put("long", "Pool", "\n\n".join(f"# Part {n}\n\n{section}" for n in range(4)))
    put("short", "Pool", POOL)
    found = await _ids(stub)
    assert sorted(found) == ["long", "long", "short"]
    assert await _ids(stub, top_k=1) == found[:1]


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"encoder": "minilm-other"}, FailedPreconditionError, "'minilm-other' is not the index's own"),
        ({"query": "  "}, InvalidArgumentError, "'query' is empty"),
        ({"query": "x" * 20_001}, InvalidArgumentError, "limit is 20000"),
        ({"top_k": 51}, InvalidArgumentError, "limit is 50"),
        ({"tenant": ""}, InvalidArgumentError, "'caller.tenant' is empty"),
        ({"as_of": Timestamp(seconds=10**12)}, InvalidArgumentError, "'as_of' must be a time"),
    ],
)
async def test_bad_requests_are_refused(stub: RetrieverServiceStub, fields: dict[str, Any], error: type[Exception], message: str) -> None:
    """Each wrong field has its status and a message that names it."""
    with pytest.raises(error, match=message):
        await _retrieve(stub, **fields)


async def test_before_there_is_an_index(bus: NatsServer, encoder: Encoder) -> None:
    """The service is not ready and says so; an index of another encoder is refused; a right one is picked up without a restart."""
    settings = Settings()
    async with running("retriever", settings, start) as runtime, rpc.channel(settings, "cli", "retriever") as channel:
        stub = RetrieverServiceStub(channel)
        assert runtime.health.report()[0] is False
        with pytest.raises(UnavailableError, match="not built yet"):
            await _retrieve(stub)
        LanceIndex.create(Path(bus.state_dir) / "knowledge", "minilm-other")
        with pytest.raises(FailedPreconditionError, match="minilm-other"):
            await _retrieve(stub)
        LanceIndex.create(Path(bus.state_dir) / "knowledge", encoder.identity.key())
        assert await _ids(stub) == []
        assert runtime.health.report()[0] is True
