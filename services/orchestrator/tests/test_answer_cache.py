"""Released answers are given again only to whom, and only while, they would be made again."""

import asyncio
import json
from typing import Any

import pytest

from chassis.messaging import encode
from chassis.provisioning import load_release_keys
from contracts.answers import ALL_ANSWERS, document_token, rests_on
from contracts.releases import verify
from contracts.subjects import APPLIED, KNOWLEDGE
from strata.gateway.v1.gateway_events_pb2 import Caller
from strata.guardrail.v1 import guardrail_service_pb2 as guard
from strata.ingestor.v1.ingestor_events_pb2 import KnowledgeApplied, KnowledgeChanged
from strata.orchestrator.v1.orchestrator_events_pb2 import ResponseReleased

from .conftest import Stack
from .declared import WORKFLOWS


async def _ask(stack: Stack, name: str, text: str = "May I return boots?", **fields: Any) -> ResponseReleased:
    await stack.ask(name, text, workflow="cached", **fields)
    (window,) = await stack.answer(name)
    await stack.idle()
    return window


async def _kept(stack: Stack) -> list[str]:
    info = await stack.admin.request("$JS.API.STREAM.INFO.KV_ANSWERS", json.dumps({"subjects_filter": ALL_ANSWERS}).encode())
    return sorted(json.loads(info.data)["state"].get("subjects") or {})


def _generated(stack: Stack, name: str) -> int:
    return stack.script.calls["Generate", name]


async def test_the_same_question_is_answered_without_a_model_and_checked_and_signed_anew(stack: Stack) -> None:
    """The second answer has the same text and citations, a release of its own, and a trace that names the first."""
    async with stack.orchestrator():
        first = await _ask(stack, "r1")
        second = await _ask(stack, "r2", "May I  return boots? ")

    assert (_generated(stack, "r1"), _generated(stack, "r2")) == (1, 0)
    assert (second.release.text, second.completion.citations) == (first.release.text, first.completion.citations)
    assert (second.completion.origin, second.completion.adapter, second.completion.completion_tokens) == ("model", "answer@v1", 0)
    assert [stack.script.calls[name, "r2"] for name in ("CheckInput", "Route", "Retrieve", "CheckOutput")] == [1, 1, 1, 1]
    verify(load_release_keys(stack.server.state_dir), second.release, request_id="r2", trace_id="0" * 31 + "1", tenant="acme")
    records = {record.step_id: record for record in await stack.audit("r2")}
    for step in ("answer", "release"):
        assert records[step].details["cached"] is True
        assert dict(records[step].details["cached_from"]) == {"request_id": "r1", "trace_id": "0" * 31 + "1"}


@pytest.mark.parametrize(
    "caller",
    [Caller(tenant="acme", role="app", labels=["staff"]), Caller(tenant="acme", role="app", permissions=["pii:read"])],
    ids=["labels", "permissions"],
)
async def test_who_may_see_something_else_gets_an_answer_of_his_own(stack: Stack, caller: Caller) -> None:
    """Labels and permissions are part of what an answer is found by."""
    async with stack.orchestrator():
        await _ask(stack, "r1")
        await _ask(stack, "r2", caller=caller)
    assert _generated(stack, "r2") == 1


async def test_no_answer_crosses_tenants(stack: Stack) -> None:
    """What one tenant's request left is not found by another's."""
    async with stack.orchestrator():
        await _ask(stack, "r1")
        await stack.ask("r2", workflow="cached", caller=Caller(tenant="umbra", role="app", permissions=["request:create"]))
        await stack.until(lambda: _generated(stack, "r2") == 1)
        await stack.idle()
    assert {rests_on(subject)[0] for subject in await _kept(stack)} == {"acme", "umbra"}


async def test_a_version_that_was_superseded_is_answered_from_no_more(stack: Stack) -> None:
    """Retrieval finds the new version, so that the old answer is not found, whether or not anyone has dropped it."""
    async with stack.orchestrator():
        await _ask(stack, "r1")
        stack.script.version = "3"
        await _ask(stack, "r2")
    assert _generated(stack, "r2") == 1


async def test_answers_go_with_the_documents_they_rest_on(stack: Stack) -> None:
    """Events of both kinds drop the answers that rest on what changed, and no others."""
    async with stack.orchestrator():
        await _ask(stack, "r1")
        stack.script.passages = [("d7", "Fitting", "Shoes are fitted on the first floor.")]
        await _ask(stack, "r2")
        stack.script.passages = [("a/b", "Laces", "Laces cost two.")]
        await _ask(stack, "r3")
        assert len(await _kept(stack)) == 3
        js = stack.admin.jetstream()
        deleted = KnowledgeChanged(collection="rules", document_id="d1", change="deleted")
        applied = KnowledgeApplied(source="shop", deleted=["rules/a/b"], deleted_count=1)
        await js.publish(KNOWLEDGE.at(kind="anchored", event="deleted"), encode(KNOWLEDGE, deleted))
        await js.publish(APPLIED.at(source="shop"), encode(APPLIED, applied))
        async with asyncio.timeout(180):
            while len(left := await _kept(stack)) > 1:  # noqa: ASYNC110 - another process' state
                await asyncio.sleep(0.02)
    assert rests_on(left[0]) == ("acme", {document_token("rules", "d7")})


async def test_what_is_personal_changed_or_not_whole_is_not_kept(stack: Stack) -> None:
    """Personal data, tools, abstentions and redactions leave nothing in the bucket."""
    async with stack.orchestrator():
        await _ask(stack, "r1", "Angela asks: may I return boots?")
        stack.script.intent = "stock"
        await _ask(stack, "r2")
        stack.script.intent = "policy"
        stack.script.judge = lambda request: (guard.DECISION_REGENERATE, "ungrounded") if request.origin == guard.ORIGIN_MODEL else (1, "")
        await _ask(stack, "r3")
        stack.script.judge = lambda _: (guard.DECISION_ALLOW, "")
        stack.script.passages = []
        await _ask(stack, "r4")
    assert await _kept(stack) == []


async def test_an_answer_grows_too_old(stack: Stack) -> None:
    """After the time that the workflow declares it is made again; an absent bucket only means that nothing is kept."""
    stack.write_workflow("cached", WORKFLOWS["cached"].replace("ttl_s: 600", "ttl_s: 1"))
    async with stack.orchestrator():
        await _ask(stack, "r1")
        # Longer than its life; on a slow machine it is longer still.
        await asyncio.sleep(1.1)
        await _ask(stack, "r2")
        await stack.admin.jetstream().delete_stream("KV_ANSWERS")
        await _ask(stack, "r3")
    assert (_generated(stack, "r2"), _generated(stack, "r3")) == (1, 1)
