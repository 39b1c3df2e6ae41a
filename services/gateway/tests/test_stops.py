"""The emergency stop: set by one person, effective at once, lifted by another."""

import asyncio
import time

import pytest
import pytest_asyncio
import scripted

_ASK = {"model": "auto", "messages": [{"role": "user", "content": "Hello?"}]}


@pytest_asyncio.fixture
async def people(stack):
    """Clients of two operators of the platform, and one of a tenant."""
    return [
        stack.http(await stack.new_key(role=role, user=user))
        for role, user in (("platform_operator", "ada"), ("platform_operator", "bo"), ("operator", "cy"))
    ]


async def test_a_stop_refuses_within_a_second_and_needs_another_person_to_be_lifted(stack, people) -> None:
    """One command refuses everything; who set it cannot lift it, somebody else can, and all of it is on record."""
    ada, bo, cy = people
    async with stack.http() as app:
        assert (await app.post("/v1/chat/completions", json=_ASK)).status_code == 200
        set_ = await ada.post("/v1/stops", json={"scope": "all", "reason": "leak drill"})
        assert (set_.status_code, set_.json()["set_by"]) == (201, "acme/ada")
        began = time.monotonic()
        while (answer := await app.post("/v1/chat/completions", json=_ASK)).status_code == 200:
            assert time.monotonic() - began < 1
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "stopped")
        assert (await bo.post("/v1/stops", json={"scope": "all", "reason": "again"})).json()["error"]["code"] == "already_stopped"
        assert (await ada.delete("/v1/stops/all")).json()["error"]["code"] == "second_person_required"
        assert (await cy.delete("/v1/stops/all")).json()["error"]["code"] == "permission_denied"
        assert [stop["scope"] for stop in (await cy.get("/v1/stops")).json()["data"]] == ["all"]
        assert (await bo.delete("/v1/stops/all")).json()["lifted_by"] == "acme/bo"
        await asyncio.sleep(0.3)
        assert (await app.post("/v1/chat/completions", json=_ASK)).status_code == 200
    records = [*await scripted.records(stack.admin, "stop_set"), *await scripted.records(stack.admin, "stop_lifted")]
    steps = [(record.step, record.details["scope"], record.details["by"]) for record in records]
    assert steps == [("stop_set", "all", "acme/ada"), ("stop_lifted", "all", "acme/bo")]


async def test_a_stop_reaches_its_scope_and_nobody_else(stack, people) -> None:
    """A tenant's operator stops that tenant alone; a workflow's stop leaves other workflows be."""
    ada, _, cy = people
    async with stack.http(await stack.new_key(tenant="other")) as other, stack.http() as app:
        assert (await cy.post("/v1/stops", json={"scope": "tenant.other", "reason": "drill"})).status_code == 403
        assert (await cy.post("/v1/stops", json={"scope": "tenant.acme", "reason": "drill"})).status_code == 201
        await asyncio.sleep(0.3)
        assert (await app.post("/v1/chat/completions", json=_ASK)).json()["error"]["code"] == "stopped"
        assert (await other.post("/v1/chat/completions", json=_ASK)).status_code == 200
        await ada.post("/v1/stops", json={"scope": "workflow.chat", "reason": "drill"})
        await asyncio.sleep(0.3)
        assert (await other.post("/v1/chat/completions", json=_ASK)).json()["error"]["code"] == "stopped"


async def test_what_is_running_is_cut_off(stack, people) -> None:
    """A request that waits for its answer ends with the stop, not with its deadline."""

    async def silent(*_: object) -> None:
        """Never answer."""

    stack.orchestrator.script = silent
    async with stack.http() as app:
        asked = asyncio.create_task(app.post("/v1/chat/completions", json=_ASK))
        await asyncio.sleep(0.3)
        began = time.monotonic()
        await people[0].post("/v1/stops", json={"scope": "all", "reason": "drill"})
        answer = await asked
    assert (answer.json()["error"]["code"], time.monotonic() - began < 1) == ("stopped", True)


@pytest.mark.parametrize("order", [{"scope": "all"}, {"scope": "tenants.x", "reason": "drill"}, {"scope": "tenant.*", "reason": "drill"}])
async def test_a_malformed_stop_is_refused(people, order) -> None:
    """A scope that names nothing, or no reason, is an error that says what is wrong."""
    assert (await people[0].post("/v1/stops", json=order)).json()["error"]["code"] == "invalid_request"
