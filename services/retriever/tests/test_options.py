"""Options of a search over the running service: what became of each is in the response."""

from typing import Any

import pytest

from chassis import rpc
from chassis.errors import InvalidArgumentError
from chassis.process import running
from retriever.main import start
from retriever.settings import Settings
from strata.gateway.v1.gateway_events_pb2 import Caller
from strata.retriever.v1 import retriever_service_pb2 as pb
from strata.retriever.v1.retriever_service_pb2_grpc import RetrieverServiceStub

from .conftest import Put

TEXT = "\n\n".join(
    [
        "# Pool\n\n" + "The swimming pool belongs to the town. " * 24,
        "# Hours\n\n" + "The swimming pool opens at seven. " + "Bring a towel and a lock for the pool. " * 16,
        "# Prices\n\n" + "A day in the pool costs four euros. " * 20,
    ]
)
LETTER = "My aunt visits us in May and she loves to swim every morning before breakfast with her two dogs and a neighbour. " * 2
QUESTION = "When does the swimming pool open?"


async def _retrieve(stub: RetrieverServiceStub, query: str = QUESTION, **fields: Any) -> pb.RetrieveResponse:
    caller = Caller(tenant="acme", labels=["public"])
    return await rpc.call(stub.Retrieve, pb.RetrieveRequest(caller=caller, query=query, collections=["notices"], **fields), timeout=180)


async def test_options_work_together(stub: RetrieverServiceStub, put: Put) -> None:
    """Parts, a hypothesis, neighbours and compression in one search: spans point into the stored text, the saving is told."""
    put("pool", "Pool", TEXT)
    answer = await _retrieve(
        stub,
        LETTER + QUESTION,
        multi_query=pb.MultiQuery(queries=2, budget_ms=60_000),
        hypotheses=["The swimming pool opens at seven in the morning."],
        expand=pb.Expansion(max_tokens=2000),
        compress=pb.Compression(keep_ratio=0.3),
        focus=QUESTION,
    )
    assert dict(answer.outcomes) == dict.fromkeys(["rerank", "multi_query", "hypotheses", "expand", "compress"], "done")
    assert answer.queries == 4
    (passage,) = answer.passages
    assert "The swimming pool opens at seven." in passage.text
    assert [TEXT[span.start : span.end] in passage.text for span in passage.spans] == [True] * len(passage.spans)
    assert 0 < answer.tokens_after <= 0.3 * answer.tokens_before + 1


async def test_without_options_nothing_changes(stub: RetrieverServiceStub, put: Put) -> None:
    """Everything but the rerank is off, and a passage is one piece."""
    put("pool", "Pool", TEXT)
    answer = await _retrieve(stub)
    assert dict(answer.outcomes) == {"rerank": "done", "multi_query": "off", "hypotheses": "off", "expand": "off", "compress": "off"}
    assert (answer.queries, answer.tokens_before, answer.tokens_after) == (1, 0, 0)
    assert not any(passage.spans for passage in answer.passages)


async def test_what_ran_out_of_budget_is_told(put: Put) -> None:
    """A skipped rerank, neighbours and parts are in the response, and the passages are there all the same."""
    put("pool", "Pool", TEXT)
    tight = {"rerank": {"budget_ms": 0.001}, "expand_budget_ms": 0.001, "expand_tokens": {"notices": 900}}
    settings = Settings(ranking=tight)
    async with running("retriever", settings, start), rpc.channel(settings, "orchestrator", "retriever") as channel:
        answer = await _retrieve(RetrieverServiceStub(channel), LETTER + QUESTION, multi_query=pb.MultiQuery(queries=3, budget_ms=0.001))
    assert [answer.outcomes[part] for part in ("rerank", "expand", "multi_query")] == ["skipped"] * 3
    assert answer.queries == 1
    assert answer.passages


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rewrite": "poem"}, "'rewrite' is 'poem'; known"),
        ({"compress": pb.Compression()}, "'compress' needs"),
        ({"compress": pb.Compression(keep_ratio=1.5)}, "'compress' needs"),
        ({"multi_query": pb.MultiQuery(queries=1, budget_ms=-1)}, "must not be negative"),
        ({"hypotheses": ["x" * 20_001]}, "'hypotheses' has a text of more than 20000"),
    ],
)
async def test_an_option_that_cannot_be_is_refused(stub: RetrieverServiceStub, fields: dict[str, Any], message: str) -> None:
    """The error names the field and what would be right."""
    with pytest.raises(InvalidArgumentError, match=message):
        await _retrieve(stub, **fields)
