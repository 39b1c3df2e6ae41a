"""The emergency stop: set by one person, effective at once, lifted by another."""

import asyncio

import pytest
import pytest_asyncio
import scripted

_ASK = {"model": "auto", "messages": [{"role": "user", "content": "Hello?"}]}


async def _is_stopped(http) -> bool:
    """Tell whether a request is refused because of a stop; any other refusal fails."""
    answer = await http.post("/v1/chat/completions", json=_ASK)
    assert answer.status_code == 200 or answer.json()["error"]["code"] == "stopped"
    return answer.status_code != 200


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
    steps = [(record.step, record.details["scope"], record.details["by"]) for record in records]
    assert steps == [("stop_set", "all", "acme/ada"), ("stop_lifted", "all", "acme/bo")]


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
