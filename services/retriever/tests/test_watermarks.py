"""A query may demand a place in the source of a collection."""

import asyncio
import time
from typing import Any

import pytest
from nats.aio.client import Client

from chassis import rpc
from chassis.errors import UnavailableError
from chassis.messaging import encode
from chassis.tasks import in_time
from contracts.subjects import APPLIED
from retriever.staleness import STALE
from retriever.watermarks import Watermarks
from strata.gateway.v1.gateway_events_pb2 import Caller
from strata.ingestor.v1.ingestor_events_pb2 import KnowledgeApplied
from strata.retriever.v1 import retriever_service_pb2 as pb

from .conftest import Put


def _request(**fields: Any) -> pb.RetrieveRequest:
    caller = Caller(tenant="acme", labels=["public"])
    return pb.RetrieveRequest(caller=caller, query="When is the kettle boiling?", collections=["notices"], **fields)


async def _apply(admin: Client, position: int) -> None:
    event = KnowledgeApplied(source="shop", last_position=position, collections=["notices"])
    event.searchable_at.GetCurrentTime()
    await admin.publish(APPLIED.at(source="shop"), encode(APPLIED, event))


async def test_a_place_never_moves_back() -> None:
    """An event that arrives late does not make the index look older than it is."""
    marks = Watermarks()
    await marks.moved(["a"], 20, 1.0)
    await marks.moved(["a", "b"], 10, 2.0)

    assert marks.of(["a", "b", "c"]) == {"a": 20, "b": 10}


async def test_a_demand_that_is_not_met_is_refused_or_answered_with_its_age(stub: Any, put: Put, admin: Client) -> None:
    """Behind the demanded place a query gets a stable code, or the answer and how old it is where the caller accepts that."""
    put("kettle", "Kettle", "The kettle is boiling at ten in the morning.")
    await _apply(admin, 100)
    await rpc.call(stub.Retrieve, _request(at_least={"notices": 100}, wait_seconds=60), timeout=180)

    with pytest.raises(UnavailableError) as caught:
        await rpc.call(stub.Retrieve, _request(at_least={"notices": 101}, wait_seconds=0.2), timeout=180)
    assert caught.value.code == "knowledge_behind"
    answer = await rpc.call(stub.Retrieve, _request(at_least={"notices": 101}, accept_stale=True), timeout=180)

    assert answer.passages
    assert answer.watermarks["notices"] == 100
    assert answer.stale_seconds["notices"] >= 0
    with pytest.raises(UnavailableError, match="no known place") as unknown:
        await rpc.call(stub.Retrieve, _request(at_least={"notices": 1, "letters": 1}, accept_stale=True), timeout=180)
    assert unknown.value.code == "knowledge_behind"


async def test_a_query_waits_until_the_index_has_come_far_enough(stub: Any, put: Put, admin: Client) -> None:
    """The answer comes once the change that it depends on is searchable, not before and not much later."""
    put("kettle", "Kettle", "The kettle is boiling at ten in the morning.")
    asking = asyncio.create_task(rpc.call(stub.Retrieve, _request(at_least={"notices": 7}, wait_seconds=60), timeout=180))
    await asyncio.sleep(0.3)
    assert not asking.done()

    await _apply(admin, 7)
    answer = await in_time(180, asking)

    assert answer.watermarks["notices"] == 7
    assert not answer.stale_seconds


async def test_a_pinned_version_is_found_and_no_other(stub: Any, put: Put) -> None:
    """A version that is named is searched, in force or not."""
    put("old", "Kettle", "The kettle is boiling at nine.", version="1")
    put("new", "Kettle", "The kettle is boiling at ten.", version="2")

    answer = await rpc.call(stub.Retrieve, _request(version="1"), timeout=180)

    assert [passage.document_id for passage in answer.passages] == ["old"]


async def test_a_query_finds_again_what_was_there_at_a_place(stub: Any, put: Put) -> None:
    """With the places of an earlier answer a closed chunk is found and a later one is not."""
    put("then", "Kettle", "The kettle is boiling at nine.", chunks={"position": 10, "closed_position": 20})
    put("now", "Kettle", "The kettle is boiling at ten.", chunks={"position": 20})

    present = await rpc.call(stub.Retrieve, _request(), timeout=180)
    past = await rpc.call(stub.Retrieve, _request(positions={"notices": 15}), timeout=180)

    assert [passage.document_id for passage in present.passages] == ["now"]
    assert [passage.document_id for passage in past.passages] == ["then"]


async def test_a_passage_that_had_changed_in_its_source_is_counted_as_stale(stub: Any, put: Put, admin: Client) -> None:
    """It counts where the change was committed before the search and could not be found yet; a later change, or another's, does not."""
    put("kettle", "Kettle", "The kettle is boiling at ten in the morning.")
    before, counted = time.time(), STALE.labels(collection="notices")._value.get()
    await rpc.call(stub.Retrieve, _request(), timeout=180)
    changes = [(before - 5, "notices/other"), (time.time(), "notices/kettle"), (before, "notices/kettle")]
    for position, (committed, document) in enumerate(changes, 1):
        event = KnowledgeApplied(source="shop", last_position=position, collections=["notices"], upserted=[document])
        event.committed_at.FromMicroseconds(int(committed * 1e6))
        event.searchable_at.GetCurrentTime()
        await admin.publish(APPLIED.at(source="shop"), encode(APPLIED, event))
    await rpc.call(stub.Retrieve, _request(at_least={"notices": 3}, wait_seconds=60), timeout=180)

    assert STALE.labels(collection="notices")._value.get() - counted == 1
