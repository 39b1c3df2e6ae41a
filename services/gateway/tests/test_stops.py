"""The emergency stop: set by one person, effective at once, lifted by another."""

import asyncio
import json
import time

import pytest
import pytest_asyncio
import scripted
from nats.js.errors import NoKeysError

_ASK = {"model": "auto", "messages": [{"role": "user", "content": "Hello?"}]}


async def _is_stopped(http) -> bool:
    """Tell whether a request is refused because of a stop; any other refusal fails."""
    answer = await http.post("/v1/chat/completions", json=_ASK)
    assert answer.status_code == 200 or answer.json()["error"]["code"] == "stopped"
    return answer.status_code != 200


async def _attempts(stack) -> list[str]:
    """Return what was begun and has no outcome on record."""
    try:
        return list(await (await stack.admin.jetstream().key_value("ATTEMPTS")).keys())
    except NoKeysError:
        return []


async def _outcomes(admin, count: int) -> list[tuple[str, str, str, str]]:
    """Return what is on record of how attempts ended, once there are so many."""
    found: list[tuple[str, str, str, str]] = []

    async def _are_there() -> bool:
        found[:] = sorted((r.step, r.phase, r.outcome, r.user) for r in await scripted.records(admin) if r.phase != "attempted")
        return len(found) >= count

    await scripted.until(_are_there)
    return found


async def _is_answered(http) -> bool:
    return not await _is_stopped(http)


@pytest_asyncio.fixture
async def people(stack):
    """Clients of two operators of the platform, and one of a tenant."""
    return [
        stack.http(await stack.new_key(role=role, user=user))
        for role, user in (("platform_operator", "ada"), ("platform_operator", "bo"), ("operator", "cy"))
    ]


async def test_a_stop_refuses_and_needs_another_person_to_be_lifted(stack, people) -> None:
    """One command refuses everything; who set it cannot lift it, somebody else can, and all of it is on record."""
    ada, bo, cy = people
    async with stack.http() as app:
        assert (await app.post("/v1/chat/completions", json=_ASK)).status_code == 200
        set_ = await ada.post("/v1/stops", json={"scope": "all", "reason": "leak drill"})
        assert (set_.status_code, set_.json()["set_by"]) == (201, "acme/ada")
        await scripted.until(lambda: _is_stopped(app))
        assert (await app.post("/v1/chat/completions", json=_ASK)).status_code == 503
        assert (await bo.post("/v1/stops", json={"scope": "all", "reason": "again"})).json()["error"]["code"] == "already_stopped"
        assert (await ada.delete("/v1/stops/all")).json()["error"]["code"] == "second_person_required"
        assert (await cy.delete("/v1/stops/all")).json()["error"]["code"] == "permission_denied"
        assert [stop["scope"] for stop in (await cy.get("/v1/stops")).json()["data"]] == ["all"]
        assert (await bo.delete("/v1/stops/all")).json()["lifted_by"] == "acme/bo"
        await scripted.until(lambda: _is_answered(app))
    records = [*await scripted.records(stack.admin, "stop_set"), *await scripted.records(stack.admin, "stop_lifted")]
    steps = [(record.step, record.phase, record.code, record.details["by"]) for record in records]
    assert steps == [
        ("stop_set", "attempted", "", "acme/ada"),
        ("stop_set", "verified", "", "acme/ada"),
        ("stop_set", "attempted", "", "acme/bo"),
        ("stop_set", "failed", "already_stopped", "acme/bo"),
        ("stop_lifted", "attempted", "", "acme/bo"),
        ("stop_lifted", "verified", "", "acme/bo"),
    ]
    assert not await _attempts(stack)


async def test_a_key_that_names_nobody_stops_and_does_not_lift(stack, people) -> None:
    """Two keys without a user may be one person's, so none stands for a second person; a person with a name lifts what it has stopped."""
    nobody = stack.http(await stack.new_key(role="platform_operator", user=""))
    assert (await nobody.post("/v1/stops", json={"scope": "workflow.x", "reason": "drill"})).status_code == 201
    other = stack.http(await stack.new_key(role="platform_operator", user=""))
    for key in (nobody, other):
        assert (await key.delete("/v1/stops/workflow.x")).json()["error"]["code"] == "permission_denied"
    assert [stop["scope"] for stop in (await people[1].get("/v1/stops")).json()["data"]] == ["workflow.x"]
    assert (await people[0].delete("/v1/stops/workflow.x")).json()["lifted_by"] == "acme/ada"


async def test_a_log_that_takes_nothing_does_not_keep_anybody_from_stopping(run, admin) -> None:
    """The stop holds at once and is kept as begun; lifting waits for the log, and both are on record once it takes records again."""
    js = admin.jetstream()
    config = (await js.stream_info("AUDIT")).config
    async with run(abandoned_seconds=0.5) as stack:
        ada, bo = [stack.http(await stack.new_key(role="platform_operator", user=user)) for user in ("ada", "bo")]
        await js.update_stream(config.evolve(max_bytes=1))
        set_ = await ada.post("/v1/stops", json={"scope": "workflow.x", "reason": "drill"})
        lifted = await bo.delete("/v1/stops/workflow.x")
        before = await scripted.records(admin)
        await js.update_stream(config)
        found = await _outcomes(admin, 2)
    assert (set_.status_code, lifted.status_code, before) == (201, 503, [])
    assert found == [("stop_lifted", "failed", "failed", "bo"), ("stop_set", "verified", "succeeded", "ada")]


async def test_what_a_gateway_left_open_is_found_by_the_next(run, admin) -> None:
    """Killed between a deed and its record, a gateway leaves what it had begun; the next one tells from the history what became of it."""
    js = admin.jetstream()
    stops, attempts = await js.key_value("STOPS"), await js.key_value("ATTEMPTS")

    async def begun(name: str, step: str, scope: str) -> None:
        details = {"scope": scope, "by": "acme/ada"}
        fields = {"id": name, "step": step, "tenant": "acme", "user": "ada", "request_id": name, "at": time.time(), "details": details}
        await attempts.create(name, json.dumps(fields).encode())

    def value(**fields: str) -> bytes:
        return json.dumps({"reason": "drill", "set_by": "acme/ada", "set_at": "2026-11-22T00:00:00Z", **fields}).encode()

    await begun("a1", "stop_set", "tool.a")
    await stops.create("tool.a", value(attempt="a1"))
    await begun("a2", "stop_set", "tool.b")
    await begun("a3", "stop_lifted", "tool.a")
    await stops.delete("tool.a", last=await stops.put("tool.a", value(attempt="a1", lifting="a3")))
    await stops.create("tool.c", value(attempt="a0"))
    await begun("a4", "stop_lifted", "tool.c")
    async with run(abandoned_seconds=0.1):
        await _outcomes(admin, 4)
    found = {(r.request_id, r.step, r.phase, r.outcome, r.user) for r in await scripted.records(admin)}
    assert found == {
        ("a1", "stop_set", "verified", "succeeded", "ada"),
        ("a2", "stop_set", "failed", "failed", "ada"),
        ("a3", "stop_lifted", "verified", "succeeded", "ada"),
        ("a4", "stop_lifted", "failed", "failed", "ada"),
    }


async def test_a_stop_reaches_its_scope_and_nobody_else(stack, people) -> None:
    """A tenant's operator stops that tenant alone; a workflow's stop leaves other workflows be."""
    ada, _, cy = people
    async with stack.http(await stack.new_key(tenant="other")) as other, stack.http() as app:
        assert (await cy.post("/v1/stops", json={"scope": "tenant.other", "reason": "drill"})).status_code == 403
        assert (await cy.post("/v1/stops", json={"scope": "tenant.acme", "reason": "drill"})).status_code == 201
        await scripted.until(lambda: _is_stopped(app))
        assert (await other.post("/v1/chat/completions", json=_ASK)).status_code == 200
        await ada.post("/v1/stops", json={"scope": "workflow.chat", "reason": "drill"})
        await scripted.until(lambda: _is_stopped(other))


async def test_what_is_running_is_cut_off(stack, people) -> None:
    """A request that waits for its answer ends with the stop, not with its deadline."""

    async def silent(*_: object) -> None:
        """Never answer."""

    async def _seen() -> object:
        return stack.orchestrator.seen

    stack.orchestrator.script = silent
    async with stack.http() as app:
        asked = asyncio.create_task(app.post("/v1/chat/completions", json=_ASK))
        await scripted.until(_seen)
        await people[0].post("/v1/stops", json={"scope": "all", "reason": "drill"})
        answer = await asked
    assert answer.json()["error"]["code"] == "stopped"


@pytest.mark.parametrize("order", [{"scope": "all"}, {"scope": "tenants.x", "reason": "drill"}, {"scope": "tenant.*", "reason": "drill"}])
async def test_a_malformed_stop_is_refused(people, order) -> None:
    """A scope that names nothing, or no reason, is an error that says what is wrong."""
    assert (await people[0].post("/v1/stops", json=order)).json()["error"]["code"] == "invalid_request"
