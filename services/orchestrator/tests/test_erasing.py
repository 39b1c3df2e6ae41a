"""Nothing of an erased person stays with the orchestrator, and everything of everybody else does."""

import asyncio
import json
import time

from chassis.erasing import record_id
from contracts.answers import answer_subject
from contracts.streams import RUNS
from contracts.subjects import ADMITTED, DECISION, ERASURE, RESPONSE
from strata.audit.v1.audit_events_pb2 import ErasedRequest, ErasureOrdered, StepRecorded
from strata.gateway.v1.gateway_events_pb2 import Caller, ChatMessage, RequestAdmitted

from .conftest import Stack
from .test_decisions import all_read, decided, released


async def order(stack: Stack, *names: str, erasure: str = "erasure/e1", open_seconds: float = 0) -> None:
    """Order as audit does."""
    ordered = ErasureOrdered(erasure_id=erasure, tenant="acme", holder="orchestrator", part=1)
    for name in names:
        request = ErasedRequest(request_id=name)
        if open_seconds:
            request.open_until.FromMilliseconds(int((time.time() + open_seconds) * 1000))
        ordered.requests.append(request)
    at = ERASURE.at(tenant="acme", holder="orchestrator")
    await stack.admin.jetstream().publish(at, ordered.SerializeToString())


async def until_recorded(stack: Stack, erasure: str = "erasure/e1") -> StepRecorded:
    """Wait until the orchestrator says that nothing is left."""
    async with asyncio.timeout(180):
        while True:
            for record in await stack.all_audits():
                if record.record_id == record_id(erasure, "orchestrator", 1):
                    return record
            await asyncio.sleep(0.05)


async def held(stack: Stack, word: str) -> set[str]:
    """Return the streams of which a message holds a word."""
    found, js = set(), stack.admin.jetstream()
    for stream in (f"KV_{RUNS}", "RESPONSES", "KV_ANSWERS", "DEAD"):
        state = (await js.stream_info(stream)).state
        for sequence in range(max(state.first_seq, 1), state.last_seq + 1):
            try:
                message = await js.get_msg(stream, seq=sequence)
            except Exception:  # noqa: BLE001, S112 - a place that is empty
                continue
            if word.encode() in (message.data or b""):
                found.add(stream)
    return found


async def _leave_behind(stack: Stack, name: str, word: str) -> None:
    """Have a request answered, decided about, kept and found dead, each with a word of its own."""
    stack.script.words = [f"Goods {word} can be returned ", "within 30 days [1]."]
    await stack.ask(name, f"May I return {word}?")
    await stack.answer(name)
    await decided(stack, name, text=f"Come in with {word}.")
    await released(stack, name)
    # Whoever removes the review before that is done erases, and the decision is taken back.
    await all_read(stack)
    js = stack.admin.jetstream()
    await (await js.key_value("REVIEWS")).purge(f"acme.{name}")
    body = json.dumps({"result": {"text": word}, "kept_at": time.time(), "request_id": name, "trace_id": ""})
    await js.publish(answer_subject("acme", "a" * 8 + name, ["d" * 24]), body.encode())
    dead = RequestAdmitted(request_id=name, caller=Caller(tenant="acme"), messages=[ChatMessage(role="user", content=word)])
    headers = {"strata-subject": ADMITTED.at(request_class="interactive", tenant="acme")}
    await js.publish("strata.v1.dead.REQUESTS", dead.SerializeToString(), headers=headers)


async def test_what_was_ordered_while_nobody_ran_is_gone_after_the_next_start(stack: Stack) -> None:
    """Run, answer, decision, kept answer and dead letter of one person go, those of another stay; it is on record as verified."""
    async with stack.orchestrator():
        await _leave_behind(stack, "r1", "kingfisher")
        await _leave_behind(stack, "r2", "nightjar")
    assert await held(stack, "kingfisher") == await held(stack, "nightjar") == {f"KV_{RUNS}", "RESPONSES", "KV_ANSWERS", "DEAD"}
    await order(stack, "r1", "never-seen")
    async with stack.orchestrator():
        record = await until_recorded(stack)
        assert await held(stack, "kingfisher") == set()
        assert await held(stack, "nightjar") == {f"KV_{RUNS}", "RESPONSES", "KV_ANSWERS", "DEAD"}

    assert (record.step, record.phase, record.outcome, record.service) == ("erased_orchestrator", "verified", "succeeded", "orchestrator")
    for subject in (RESPONSE, DECISION):
        info = await stack.admin.jetstream().stream_info("RESPONSES", subjects_filter=subject.at(tenant="acme", request_id="r2"))
        assert info.state.subjects


async def test_what_runs_is_finished_and_then_erased(stack: Stack) -> None:
    """A request that is not over gets its answer first, one that was not even begun too; a delivery that comes again runs nothing."""
    stack.script.held["CheckInput"] = asyncio.Event()
    async with stack.orchestrator():
        await stack.ask("r1", "May I return the kingfisher?")
        await stack.until(lambda: bool(stack.script.requests.get("CheckInput")))
        await order(stack, "r1", "r2", open_seconds=600)
        await stack.ask("r2", "May I return the kingfisher?")
        await stack.until(lambda: len(stack.script.requests["CheckInput"]) == 2)
        assert not [record for record in await stack.all_audits() if record.step == "erased_orchestrator"]
        stack.script.held["CheckInput"].set()
        await until_recorded(stack)
        assert await held(stack, "kingfisher") == set()
        assert not await stack.windows("r1")
        done = {name for name in ("r1", "r2") for one in await stack.audit(name) if (one.step, one.outcome) == ("release", "succeeded")}
        asked = stack.script.calls["CheckInput", "r1"]
        # As after a crash between the end of the run and its acknowledgement.
        await stack.idle(within=180)
        again = RequestAdmitted(request_id="r1", caller=Caller(tenant="acme", role="app"), model="desk", workflow="desk")
        again.received_at.GetCurrentTime()
        await stack.admin.jetstream().publish(ADMITTED.at(request_class="interactive", tenant="acme"), again.SerializeToString())
        await stack.idle(within=180)

    assert (await stack.admin.jetstream().stream_info("DEAD")).state.messages == 0
    assert done == {"r1", "r2"}
    assert stack.script.calls["CheckInput", "r1"] == asked
    assert await held(stack, "kingfisher") == set()


async def test_a_decision_that_people_can_still_make_keeps_the_erasure_open(stack: Stack) -> None:
    """The answer is gone at once; the order is carried out when review has removed the review, for its decision would be told."""
    async with stack.orchestrator():
        await stack.ask("r1", "May I return the kingfisher?")
        await stack.answer("r1")
        await decided(stack, "r1", text="Come in with the kingfisher.")
        await released(stack, "r1")
        await order(stack, "r1")
        async with asyncio.timeout(180):
            while await held(stack, "kingfisher"):  # noqa: ASYNC110 - streams signal nothing
                await asyncio.sleep(0.05)
        assert not [record for record in await stack.all_audits() if record.step == "erased_orchestrator"]
        await (await stack.admin.jetstream().key_value("REVIEWS")).purge("acme.r1")
        await until_recorded(stack)
