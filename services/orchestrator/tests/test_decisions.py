"""What people decided: held drafts, hard rules that see the answer, and the one release that follows."""

import asyncio
import os
import signal
import sys
from typing import Any

from nats.js.errors import NotFoundError

from chassis.errors import FailedPreconditionError
from chassis.messaging import decode, encode
from chassis.provisioning import load_release_keys
from contracts.releases import verify
from contracts.streams import REVIEWS
from contracts.subjects import DECISION, REVIEW
from strata.gateway.v1.gateway_events_pb2 import Caller
from strata.guardrail.v1 import guardrail_service_pb2 as guard
from strata.orchestrator.v1.orchestrator_events_pb2 import DecisionReleased, HeldDraft
from strata.review.v1.review_events_pb2 import Judgement, ReviewDecided, ReviewItem

from .conftest import Stack

TRACE = "0" * 31 + "1"


async def decided(stack: Stack, name: str, decision: str = "correct", *, status: str = "decided", text: str = "Come in today.") -> None:
    """Store a review as review does, and say that it is decided."""
    item = ReviewItem(
        request_id=name,
        trace_id=TRACE,
        tenant="acme",
        status=status,
        decision=decision,
        text="" if decision == "reject" else text,
        requester=Caller(tenant="acme", role="app", user="pat", permissions=["pii:read"]),
        vault=b"sealed",
        workflow="urgent@1",
        draft=HeldDraft(text="Draft.", model="base", adapter="answer@v1"),
        judgements=[Judgement(reviewer="ruth", decision=decision)],
        agreement=1.0,
    )
    bucket = await stack.admin.jetstream().key_value(REVIEWS)
    await bucket.put(f"acme.{name}", item.SerializeToString())
    event = ReviewDecided(request_id=name, trace_id=TRACE, tenant="acme", decision=decision)
    at = REVIEW.at(tenant="acme", decision=decision)
    await stack.admin.jetstream().publish(at, encode(REVIEW, event))


async def released(stack: Stack, name: str, *, within: float = 180) -> list[DecisionReleased]:
    """Wait for the decision of a request; return all that was told of it."""
    js, subject, found, sequence = stack.admin.jetstream(), DECISION.at(tenant="acme", request_id=name), [], 1
    async with asyncio.timeout(within):
        while True:
            try:
                message = await js.get_msg("RESPONSES", seq=sequence, subject=subject, next=True)
            except NotFoundError:
                if found:
                    return found
                await asyncio.sleep(0.02)
                continue
            found.append(decode(DECISION, message.data or b""))
            sequence = (message.seq or sequence) + 1


async def all_read(stack: Stack) -> None:
    """Wait until every event of reviews is acknowledged."""
    js = stack.admin.jetstream()
    for _ in range(9000):
        # A consumer hears of an event a moment after the stream has it.
        state, info = (await js.stream_info("REVIEWS")).state, await js.consumer_info("REVIEWS", "orchestrator-reviews")
        heard = not state.messages or bool(info.delivered and info.delivered.stream_seq >= state.last_seq)
        if heard and not info.num_pending and not info.num_ack_pending:
            return
        await asyncio.sleep(0.02)
    raise TimeoutError


async def test_a_decision_is_signed_and_told_once(stack: Stack) -> None:
    """A second event changes nothing; the release verifies as a decision and has a record before it."""
    async with stack.orchestrator():
        await decided(stack, "r1")
        await released(stack, "r1")
        await decided(stack, "r1", text="Something else.")
        await all_read(stack)
        (told,) = await released(stack, "r1")

    claims = verify(load_release_keys(stack.server.state_dir), told.release, request_id="r1", trace_id=TRACE, tenant="acme")
    assert (claims.reviewed, claims.final, claims.status, told.release.text) == (True, True, "completed", "Come in today.")
    assert (told.completion.origin, told.completion.status, told.decision, told.reviewers) == ("reviewed", "completed", "correct", 1)
    checked = stack.script.requests["CheckOutput"]
    assert [(r.origin, r.vault, list(r.caller.permissions)) for r in checked] == [(guard.ORIGIN_REVIEWED, b"sealed", ["pii:read"])]
    record, verified = await stack.audit("r1")
    assert [(r.step_id, r.phase, r.user) for r in (record, verified)] == [
        ("review_release", "attempted", "pat"),
        ("review_told", "verified", "pat"),
    ]
    assert (record.step, record.details["decision"], list(record.details["reviewers"])) == ("release", "correct", ["ruth"])


async def test_a_rejection_is_told_in_the_products_words_and_a_refusal_as_an_error(stack: Stack) -> None:
    """Nothing that guardrail did not sign leaves, whoever wrote it."""
    stack.script.judge = lambda r: (guard.DECISION_BLOCK, "unsafe") if "forbidden" in r.text else (guard.DECISION_ALLOW, "")
    async with stack.orchestrator():
        await decided(stack, "r1", "reject")
        await decided(stack, "r2", text="forbidden")
        (rejected,) = await released(stack, "r1")
        (refused,) = await released(stack, "r2")

    assert rejected.release.text.startswith("A person has looked at your message")
    assert (rejected.completion.status, rejected.completion.code) == ("blocked", "review_rejected")
    assert (refused.error_code, refused.HasField("release")) == ("output_blocked", False)


async def test_a_decision_waits_while_its_tenant_is_stopped(stack: Stack) -> None:
    """It is neither told nor buried, and leaves when the stop is lifted."""
    refusals = iter([True, True, False])

    def judge(_: Any) -> tuple[int, str]:
        if next(refusals):
            raise FailedPreconditionError("an operator has stopped this", code="stopped")
        return guard.DECISION_ALLOW, ""

    stack.script.judge = judge
    async with stack.orchestrator():
        await decided(stack, "r1")
        (told,) = await released(stack, "r1")

    assert told.release.text == "Come in today."
    assert (await stack.admin.jetstream().stream_info("DEAD")).state.messages == 0


async def test_an_event_alone_decides_nothing(stack: Stack) -> None:
    """Who can say that a review is decided cannot make it so; labels and alarms release nothing either."""
    async with stack.orchestrator():
        await decided(stack, "r1", status="open")
        await decided(stack, "r2", "overdue")
        await decided(stack, "r3", "label")
        await decided(stack, "r4")
        await released(stack, "r4")
        await asyncio.sleep(0.5)

    assert {r.request_id for r in stack.script.requests["CheckOutput"]} == {"r4"}


async def test_no_decision_is_lost_or_doubled_when_the_process_is_killed(stack: Stack) -> None:
    """Twenty decisions meet a kill -9 in the middle of their releases; each is told exactly once."""
    stack.script.delays["CheckOutput"] = 0.15
    names = [f"r{number}" for number in range(20)]
    for name in names:
        await decided(stack, name)
    command = [sys.executable, "-m", "orchestrator"]
    running = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL, env=os.environ)
    try:
        await stack.until(lambda: sum(stack.script.calls.values()) >= 7)
    finally:
        running.send_signal(signal.SIGKILL)
        await running.wait()
    async with stack.orchestrator():
        told = [await released(stack, name) for name in names]
        await all_read(stack)

    assert [len(messages) for messages in told] == [1] * len(names)
    records = [record.record_id for record in await stack.all_audits()]
    assert sorted(records) == sorted(f"acme/{name}/review_{step}/1" for name in names for step in ("release", "told"))


RULE = """
version: '1'
overrides: []
escalation:
  - {id: sure-but-wrong, version: '1', owner: desk, when: "evidence.passages > 0 and disagreement", at: release,
     reason: disagreement, severity: high, deadline_seconds: 60, message: Wait.}
"""


async def test_a_hard_rule_sees_the_answer_and_holds_it_back(stack: Stack) -> None:
    """The client waits, nothing of a stream has left, and the draft with its verdict is kept for the reviewer."""
    (stack.repository / "domains" / "shop" / "policy.yaml").write_text(RULE)
    stack.script.rules = _escalate_at_release
    async with stack.orchestrator():
        await stack.ask("r1", stream=True)
        (window,) = await stack.answer("r1")

    assert (window.release.text, window.completion.status, window.completion.code) == ("Wait.", "pending_review", "disagreement")
    held = (await stack.record("r1")).held
    assert (held.text, held.origin, held.adapter) == ("Goods can be returned within 30 days [1].", "model", "answer@v1")
    assert (held.verdict.decision, held.citations[0].document_id) == (guard.DECISION_ALLOW, "d1")
    early, late = [dict(request.facts) for request in stack.script.requests["EvaluateRules"]]
    assert (early["stage"], early["risk"]["score"], late["stage"]) == ("route", 0, "release")
    assert (late["evidence"]["passages"], late["evidence"]["missing"], late["disagreement"]) == (2, False, False)
    assert late["draft"]["origin"] == "model"


def _escalate_at_release(request: Any) -> guard.EvaluateRulesResponse:
    if dict(request.facts)["stage"] != "release":
        return guard.EvaluateRulesResponse()
    return guard.EvaluateRulesResponse(escalate=True, rule_id="sure-but-wrong", reason="disagreement", message="Wait.")


async def test_a_draft_that_a_check_hands_to_a_person_is_kept(stack: Stack) -> None:
    """Guardrail is told a reason of its own, so that somebody hears of it even where no rule names it."""
    stack.script.judge = lambda r: (guard.DECISION_ESCALATE, "self_harm") if r.origin == guard.ORIGIN_MODEL else (guard.DECISION_ALLOW, "")
    stack.script.rules = lambda r: guard.EvaluateRulesResponse(escalate="escalation" in dict(r.facts), reason="self_harm", message="Wait.")
    async with stack.orchestrator():
        await stack.ask("r1")
        (window,) = await stack.answer("r1")

    assert (window.release.text, window.completion.status) == ("Wait.", "pending_review")
    assert (await stack.record("r1")).held.text == "Goods can be returned within 30 days [1]."
    assert dict(stack.script.requests["EvaluateRules"][-1].facts)["escalation"]["reason"] == "self_harm"
