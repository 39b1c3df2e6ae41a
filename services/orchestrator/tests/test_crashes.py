"""What a crash, a stale owner and a restart cost: at most the step that ran, never an answer."""

import asyncio
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chassis.json_mapping import to_json_bytes
from chassis.messaging import encode
from chassis.provisioning import load_signing_key
from contracts.releases import completion_digest, sign
from contracts.subjects import RESPONSE
from orchestrator import catalogue
from strata.audit.v1.audit_events_pb2 import StepRecorded
from strata.guardrail.v1 import guardrail_service_pb2 as guard
from strata.orchestrator.v1.orchestrator_events_pb2 import Completion, ResponseReleased, RunRecord, StepResult

from .conftest import ALLOW, Stack

METHODS = {
    "input": "CheckInput",
    "route": "Route",
    "stock": "Invoke",
    "passages": "Retrieve",
    "answer": "Generate",
    "release": "CheckOutput",
}
SLOW = {"CheckInput": 0.1, "Route": 0.2, "Invoke": 0.3, "Retrieve": 0.4, "Generate": 0.4, "CheckOutput": 0.2}


@asynccontextmanager
async def process(stack: Stack, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the orchestrator as the process that an operator starts; it is killed when the block ends."""
    log = (stack.repository / f"orchestrator-{time.monotonic_ns()}.log").open("wb")
    variables = {**os.environ, "STRATA_DEADLINE_FACTOR": "20", **environment}
    started = await asyncio.create_subprocess_exec(sys.executable, "-m", "orchestrator", stdout=log, stderr=log, env=variables)
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()
        log.close()


async def test_nothing_is_lost_or_repeated_when_the_process_is_killed(stack: Stack) -> None:
    """Fifty requests in flight survive kill -9: all are answered once, and no finished step runs again."""
    stack.script.delays = SLOW
    names = [f"r{number}" for number in range(50)]
    for name in names:
        await stack.ask(name)
    async with process(stack) as first:
        await stack.until(lambda: sum(n for (method, _), n in stack.script.calls.items() if method == "Generate") >= 20)
        first.send_signal(signal.SIGKILL)
        await first.wait()
    finished = {name: set((await stack.record(name)).steps) for name in names}
    before = stack.script.calls.copy()
    assert any("release" not in steps for steps in finished.values())

    async with process(stack):
        answers = {name: await stack.answer(name) for name in names}
        await stack.idle()

    after = stack.script.calls
    assert all(len(windows) == 1 and windows[0].completion.status == "completed" for windows in answers.values())
    repeated = [
        (step, name)
        for name in names
        for step in finished[name] & METHODS.keys()
        if after[METHODS[step], name] != before[METHODS[step], name]
    ]
    assert repeated == []
    assert max(after.values()) <= 2
    recorded = {(record.request_id, record.step_id) for record in await stack.all_audits()}
    assert recorded >= {(name, step) for name in names for step in (*METHODS, "hours")}


async def test_a_stream_goes_on_where_it_was_cut_off(stack: Stack) -> None:
    """After a kill the next owner continues the text behind what was released; no window is released twice."""
    stack.script.words = [f"Sentence number {name} is here [1]. " for name in ("one", "two", "three", "four", "five", "six")]
    stack.script.word_delay = 0.3
    await stack.ask("r1", stream=True)
    async with process(stack) as first:
        await stack.until(lambda: stack.script.calls["CheckOutput", "r1"] >= 3)
        first.send_signal(signal.SIGKILL)
        await first.wait()
    before = await stack.windows("r1")

    async with process(stack):
        windows = await stack.answer("r1")

    assert windows[: len(before)] == before
    assert "".join(w.release.text for w in windows) == "".join(stack.script.words)
    claims = [guard.ReleaseClaims.FromString(w.release.claims) for w in windows]
    assert [(c.sequence, c.final) for c in claims] == [(n, n == len(windows) - 1) for n in range(len(windows))]
    # What was on its way when the process died may have arrived after we looked.
    prefix, released = stack.script.requests["Generate"][-1].prefix, [w.release.text for w in windows]
    assert prefix in {"".join(released[:count]) for count in range(len(before), len(windows) + 1)}


async def test_a_stream_that_loses_its_grounds_ends_with_passages(stack: Stack) -> None:
    """What was released stays; the rejected sentence does not leave, and the passages follow."""
    stack.script.words = ["Goods can be returned [1]. ", "The moon is cheese. ", "Really so."]
    stack.script.judge = lambda r: (guard.DECISION_REGENERATE, "unsupported_claim") if "moon" in r.text else (ALLOW, "")
    async with stack.orchestrator():
        await stack.ask("r1", stream=True)
        windows = await stack.answer("r1")

    text = "".join(w.release.text for w in windows)
    assert text.startswith("Goods can be returned [1]. \n\nI cannot give a verified answer;")
    assert "moon" not in text
    assert (windows[-1].completion.origin, windows[-1].completion.status) == ("extract", "completed")
    assert len(stack.script.requests["Generate"]) == 1


async def test_a_stream_leaves_sentence_by_sentence(stack: Stack) -> None:
    """The first window is out while the model still writes, and only the last carries the completion."""
    stack.script.words = ["One is done [1]. ", "Two ", "is done. ", "Three."]
    go_on = stack.script.held["word/2"] = asyncio.Event()
    async with stack.orchestrator():
        await stack.ask("r1", stream=True)
        async with asyncio.timeout(180):
            for _ in itertools.count():
                if early := await stack.windows("r1"):
                    break
                await asyncio.sleep(0.01)
        go_on.set()
        windows = await stack.answer("r1")

    assert [w.release.text for w in early] == ["One is done [1]. "]
    assert [w.release.text for w in windows] == ["One is done [1]. ", "Two is done. ", "Three."]
    assert [w.HasField("completion") for w in windows] == [False, False, True]
    assert [c.id for c in windows[-1].completion.citations] == ["1"]


async def test_a_stale_owner_stops_and_the_run_goes_on_elsewhere(stack: Stack) -> None:
    """An owner whose record was taken over writes nothing more, and leaves the message to the new owner."""
    go_on = stack.script.held["Retrieve"] = asyncio.Event()
    # Far beyond the time that the stale owner is looked at.
    await stack.lease_lasts(600)
    async with stack.orchestrator():
        await stack.ask("r1")
        await stack.until(lambda: stack.script.calls["Retrieve", "r1"] > 0)
        async with asyncio.timeout(180):
            while "stock" not in (taken := await stack.record("r1")).steps:  # noqa: ASYNC110 - a record signals nothing
                await asyncio.sleep(0.05)
        taken.owner, taken.epoch = "somebody-else", taken.epoch + 1
        await stack.admin.jetstream().publish("$KV.RUNS.acme.r1", taken.SerializeToString())
        go_on.set()
        await asyncio.sleep(1)
        assert (await stack.record("r1")) == taken
        assert not await stack.windows("r1")
        await stack.lease_lasts(1)
        (window,) = await stack.answer("r1")
        await stack.idle()

    assert window.completion.status == "completed"
    assert (await stack.record("r1")).epoch == taken.epoch + 1
    assert stack.script.calls["CheckOutput", "r1"] == 1


async def test_two_owners_can_never_both_answer(stack: Stack) -> None:
    """Where an answer appears while a run is on its way, the run adds none."""
    go_on = stack.script.held["CheckOutput"] = asyncio.Event()
    key_id, key = load_signing_key(stack.server.state_dir)
    claims = guard.ReleaseClaims(request_id="r1", trace_id="0" * 31 + "1", tenant="acme", final=True, status="completed")
    final = Completion(status="completed")
    claims.completion_sha256 = completion_digest(json.loads(to_json_bytes(final)))
    other = ResponseReleased(request_id="r1", release=sign(key, key_id, claims, "Another."), completion=final)
    async with stack.orchestrator():
        await stack.ask("r1")
        await stack.until(lambda: stack.script.calls["CheckOutput", "r1"] > 0)
        at = RESPONSE.at(tenant="acme", request_id="r1")
        await stack.admin.jetstream().publish(at, encode(RESPONSE, other))
        go_on.set()
        await stack.idle()

    assert await stack.windows("r1") == [other]
    assert (await stack.record("r1")).status == "done"


async def test_a_forged_window_is_neither_continued_nor_taken_for_the_answer(stack: Stack) -> None:
    """What guardrail did not sign does not count: the answer is released as if it were not there."""
    go_on = stack.script.held["CheckOutput"] = asyncio.Event()
    async with stack.orchestrator():
        await stack.ask("r1")
        await stack.until(lambda: stack.script.calls["CheckOutput", "r1"] > 0)
        forged = b'{"request_id": "r1", "release": {"text": "Forged."}, "completion": {"status": "completed"}}'
        await stack.admin.jetstream().publish(RESPONSE.at(tenant="acme", request_id="r1"), forged)
        go_on.set()
        await stack.idle()
    windows = await stack.windows("r1")

    assert [w.release.text for w in windows] == ["Forged.", "Goods can be returned within 30 days [1]."]
    assert guard.ReleaseClaims.FromString(windows[1].release.claims).sequence == 0


async def test_two_instances_share_the_work(stack: Stack) -> None:
    """Each of thirty requests runs on one of two instances, and each step of it once."""
    stack.script.delays = {"Retrieve": 0.2}
    names = [f"r{number}" for number in range(30)]
    async with (
        stack.orchestrator(workers=8, STRATA_DEADLINE_FACTOR=20),
        stack.orchestrator(serve_health=False, workers=8, STRATA_DEADLINE_FACTOR=20),
    ):
        for name in names:
            await stack.ask(name)
        answers = [await stack.answer(name) for name in names]
        await stack.idle()

    assert all(len(windows) == 1 and windows[0].completion.status == "completed" for windows in answers)
    assert set(stack.script.calls.values()) == {1}
    assert len({(await stack.record(name)).owner for name in names}) == 2


async def test_a_stopping_instance_hands_its_runs_over_at_once(stack: Stack) -> None:
    """What does not finish within the drain goes to the next instance without waiting for the lease to end."""
    go_on = stack.script.held["Retrieve"] = asyncio.Event()
    # Far beyond the time that a test waits for an answer.
    await stack.lease_lasts(600)
    async with stack.orchestrator(drain_seconds=0.2):
        await stack.ask("r1")
        await stack.until(lambda: stack.script.calls["Retrieve", "r1"] > 0)
    go_on.set()
    async with stack.orchestrator():
        (window,) = await stack.answer("r1")

    assert window.completion.status == "completed"
    assert (await stack.record("r1")).epoch == 2


async def test_a_record_of_the_audit_that_did_not_get_through_is_published_by_the_next_owner(stack: Stack) -> None:
    """Where an owner died between its two writes, whoever takes over tells the audit what the run record says."""
    missing = StepRecorded(record_id="acme/r1/input/1", tenant="acme", request_id="r1", step="screen", step_id="input", outcome="succeeded")
    dead = RunRecord(workflow="desk@1", status="running", owner="somebody-dead", epoch=1, unconfirmed=[missing])
    dead.pins.update(catalogue.load(stack.repository).workflows["desk"].pins)
    dead.steps["input"].CopyFrom(StepResult(step_id="input", outcome="succeeded", attempt=1))
    dead.steps["input"].result.update({"decision": "allow"})
    dead.deadline.FromSeconds(int(time.time()) + 600)
    await stack.admin.jetstream().publish("$KV.RUNS.acme.r1", dead.SerializeToString())
    await stack.ask("r1")
    async with stack.orchestrator():
        await stack.answer("r1")
        await stack.idle()

    assert [r.record_id for r in await stack.audit("r1")][:2] == ["acme/r1/input/1", "acme/r1/route/2"]
    assert stack.script.calls["CheckInput", "r1"] == 0
    assert (await stack.record("r1")).epoch == 2


async def test_a_run_whose_workflow_changed_goes_on_if_it_can(stack: Stack) -> None:
    """A new version of the file continues a run whose finished steps it still has, and the audit shows both hashes."""
    stack.script.delays = {"Generate": 5.0}
    async with stack.orchestrator(drain_seconds=0.2):
        await stack.ask("r1")
        await stack.until(lambda: stack.script.calls["Generate", "r1"] > 0)
    stack.script.delays = {}
    path = stack.repository / "domains" / "shop" / "workflows" / "desk.yaml"
    path.write_text(path.read_text() + "# edited\n")
    async with stack.orchestrator():
        (window,) = await stack.answer("r1")
        await stack.idle()

    assert window.completion.status == "completed"
    (changed,) = [r for r in await stack.audit("r1") if "pins_before" in r.details]
    assert changed.details["pins_before"]["workflow"] != changed.details["pins"]["workflow"]
