"""Requests that are repeated, left, and read later."""

import asyncio
import json
import time

import openai
import pytest
import scripted

from chassis import process
from chassis.tasks import in_time
from contracts.streams import IDEMPOTENCY, RUNS
from gateway.main import start
from gateway.settings import Settings
from strata.orchestrator.v1.orchestrator_events_pb2 import RunRecord

_ASK = [{"role": "user", "content": "Hello?"}]
_CHAT = "/v1/chat/completions"


async def _seen(stack) -> object:
    """Return what has reached the orchestrator."""
    return stack.orchestrator.seen


async def test_a_repeat_with_the_same_key_is_the_same_request(stack) -> None:
    """At once, later, or as a stream of two readers: one execution, one answer; another body is a conflict."""

    async def slow(orchestrator, request) -> None:
        await asyncio.sleep(0.3)
        await scripted.hello(orchestrator, request)

    stack.orchestrator.script = slow
    async with stack.http() as http:
        headers = {"idempotency-key": "order 7"}
        body = {"messages": _ASK}
        together = await asyncio.gather(*(http.post(_CHAT, json=body, headers=headers) for _ in range(3)))
        later = await http.post(_CHAT, json=body, headers=headers)
        conflict = await http.post(_CHAT, json={"messages": _ASK, "seed": 1}, headers=headers)
        empty = await http.post(_CHAT, json=body, headers={"idempotency-key": ""})

    answers = [*together, later]
    assert [a.json()["choices"][0]["message"]["content"] for a in answers] == ["Hello, world [1]."] * 4
    assert len({a.headers["x-request-id"] for a in answers}) == 1
    assert len(stack.orchestrator.seen) == 1
    assert (conflict.status_code, conflict.json()["error"]["code"]) == (409, "idempotency_conflict")
    assert empty.status_code == 400


async def test_the_same_key_of_another_credential_is_another_request(stack) -> None:
    """Answers depend on who asks, so a key is shared with nobody."""
    other = await stack.new_key(role="reviewer")
    async with stack.http() as http:
        headers = {"idempotency-key": "k"}
        await http.post(_CHAT, json={"messages": _ASK}, headers=headers)
        await http.post(_CHAT, json={"messages": _ASK}, headers={**headers, "authorization": f"Bearer {other}"})

    assert len({request.request_id for request in stack.orchestrator.seen}) == 2


async def test_a_repeat_takes_over_what_was_claimed_and_never_admitted(run, admin) -> None:
    """A gateway that died between claim and admission costs the client a repeat, not the request."""
    async with run(takeover_seconds=1) as stack, stack.http() as http:
        headers = {"idempotency-key": "k"}
        await http.post(_CHAT, json={"messages": _ASK}, headers=headers)
        bucket = await admin.jetstream().key_value(IDEMPOTENCY)
        (name,) = await bucket.keys()
        claim = json.loads((await bucket.get(name)).value)
        assert claim["admitted"] is True
        orphan = claim | {"admitted": False, "at": time.time() - 5, "request_id": "req_orphan", "trace_id": "ab" * 16}
        await bucket.put(name, json.dumps(orphan).encode())
        answer = await http.post(_CHAT, json={"messages": _ASK}, headers=headers)

    assert answer.headers["x-request-id"] == "req_orphan"
    assert [request.request_id for request in stack.orchestrator.seen][1:] == ["req_orphan"]


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_client_that_leaves_breaks_nothing_and_can_read_its_answer_later(stack, streamed) -> None:
    """The request goes on; the leaving is on record; the whole answer is there for who comes back."""
    go_on = asyncio.Event()

    async def patient(orchestrator, request) -> None:
        await orchestrator.send(request, orchestrator.signer.window(request, 0, "Hello, "))
        await go_on.wait()
        await orchestrator.send(request, orchestrator.signer.window(request, 1, "world", final=scripted.completion()))

    stack.orchestrator.script = patient

    async def is_on_record() -> object:
        return await scripted.records(stack.admin, "response")

    async with stack.http() as http:
        leaving = asyncio.create_task(http.post(_CHAT, json={"messages": _ASK, "stream": streamed}))
        await scripted.until(lambda: _seen(stack))
        leaving.cancel()
    await scripted.until(is_on_record)
    (request,) = stack.orchestrator.seen
    async with stack.http() as http:
        pending = (await http.get(f"/v1/requests/{request.request_id}")).json()
        go_on.set()
        finished = (await http.get(f"/v1/requests/{request.request_id}?wait=59")).json()
        other = await stack.new_key(tenant="globex")
        foreign = await http.get(f"/v1/requests/{request.request_id}", headers={"authorization": f"Bearer {other}"})

    assert pending["status"] == "pending"
    assert finished["status"] == "finished"
    assert finished["completion"]["choices"][0]["message"]["content"] == "Hello, world"
    assert (foreign.status_code, foreign.json()["error"]["code"]) == (404, "not_found")
    ends = [(r.outcome, r.code) for r in await scripted.records(stack.admin, "response")]
    assert ends == [("failed", "client_gone"), ("succeeded", "")]
    stack.orchestrator.script = scripted.hello
    await stack.openai().chat.completions.create(model="auto", messages=_ASK)


async def test_an_answer_is_for_who_asked_or_may_trace(stack, admin) -> None:
    """Names may be restored in an answer for the role that asked, so another key of the tenant does not find it."""
    stranger, auditor = await stack.new_key(role="app"), await stack.new_key(role="reviewer")
    async with stack.http() as http:
        name = (await http.post(_CHAT, json={"messages": _ASK})).headers["x-request-id"]
        (request,) = stack.orchestrator.seen
        bucket = await admin.jetstream().key_value(RUNS)
        await bucket.put(f"{request.caller.tenant}.{name}", RunRecord(request=request).SerializeToString())
        own = await http.get(f"/v1/requests/{name}")
        others = [await http.get(f"/v1/requests/{name}", headers={"authorization": f"Bearer {key}"}) for key in (stranger, auditor)]
        # As orchestrator leaves it when the person is erased; the log still knows that there was a request.
        await bucket.purge(f"{request.caller.tenant}.{name}")
        await admin.jetstream().purge_stream("RESPONSES", subject=f"strata.v1.response.*.{name}")
        erased = [await http.get(f"/v1/requests/{name}", headers={"authorization": f"Bearer {key}"}) for key in (stack.key, auditor)]

    assert own.status_code == 200
    assert [answer.status_code for answer in erased] == [404, 404]
    assert [answer.status_code for answer in others] == [404, 200]


async def test_a_request_that_has_not_begun_is_pending_and_a_failed_one_finished(stack) -> None:
    """What is on record and has no response yet is pending; an error is told with its code; nothing is invented."""
    go_on = asyncio.Event()

    async def fail(orchestrator, request) -> None:
        await go_on.wait()
        response = scripted.ResponseReleased(request_id=request.request_id, trace_id=request.trace_id, error_code="tool_timeout")
        await orchestrator.send(request, response)

    stack.orchestrator.script = fail
    async with stack.http() as http:
        task = asyncio.create_task(http.post(_CHAT, json={"messages": _ASK}))
        await scripted.until(lambda: _seen(stack))
        name = stack.orchestrator.seen[0].request_id
        pending = (await http.get(f"/v1/requests/{name}")).json()
        go_on.set()
        answer = await task
        finished = (await http.get(f"/v1/requests/{name}")).json()
        unknown = [(await http.get(f"/v1/requests/{n}")).status_code for n in ("req_unknown", "a.b", "%3E", "*")]

    assert pending["status"] == "pending"
    assert answer.status_code == 504
    assert (finished["status"], finished["error"]["code"]) == ("finished", "tool_timeout")
    assert unknown == [404] * 4


async def test_a_trace_is_for_its_tenant_and_a_role_that_may_read_it(stack) -> None:
    """Another tenant's trace does not exist; a role without the right is refused."""
    client = stack.openai()
    answer = await client.chat.completions.create(model="auto", messages=_ASK)
    about = answer.model_extra["strata"]
    reader, stranger = await stack.new_key(role="reviewer"), await stack.new_key(role="reviewer", tenant="globex")
    async with stack.http() as http:
        own = [await http.get(f"/v1/traces/{about[n]}", headers={"authorization": f"Bearer {reader}"}) for n in ("trace_id", "request_id")]
        foreign = await http.get(f"/v1/traces/{about['trace_id']}", headers={"authorization": f"Bearer {stranger}"})
        refused = await http.get(f"/v1/traces/{about['trace_id']}")

    assert [[r["record"]["step"] for r in response.json()["records"]][:2] for response in own] == [["request", "response"]] * 2
    assert (foreign.status_code, foreign.json()["error"]["code"]) == (404, "not_found")
    assert refused.status_code == 403


async def test_the_gateway_works_without_inference_and_audit_service(run) -> None:
    """Workflows can be asked for while nobody serves models; a trace is then unavailable, not missing."""
    async with run(rpc_timeout_seconds=0.5) as stack, stack.http() as http:
        answer = await http.post(_CHAT, json={"messages": _ASK})
        models = (await http.get("/v1/models")).json()
        ready, live, version, metrics = [await http.get(p) for p in ("/readyz", "/livez", "/version", "/metrics")]
        reader = await stack.new_key(role="reviewer")
        trace = await http.get("/v1/traces/x", headers={"authorization": f"Bearer {reader}"})

    assert answer.status_code == 200
    assert [model["id"] for model in models["data"]] == ["auto", "chat", "extract"]
    assert (ready.status_code, live.text, version.json()["service"]) == (200, "ok\n", "gateway")
    assert "strata_gateway_requests_total" in metrics.text
    assert (trace.status_code, trace.json()["error"]["code"]) == (503, "service_unavailable")


async def test_without_an_ingestor_documents_are_unavailable(run) -> None:
    """The client is told to try again."""
    async with run(rpc_timeout_seconds=0.5, upload_seconds=1) as stack, stack.http(await stack.new_key(role="knowledge_editor")) as http:
        collections, page = "/v1/knowledge/collections", {"file": ("refunds.md", b"# Refunds", "")}
        posted = await http.post(f"{collections}/rules/documents", data={"effective_from": "2024-01-01"}, files=page)
        answers = [await http.get(collections), posted]

    codes = [(answer.status_code, answer.json()["error"]["code"]) for answer in answers]
    assert codes == [(503, "service_unavailable")] * 2


async def test_answers_survive_a_restart_of_the_bus(stack) -> None:
    """A request that waits while the bus dies and comes back gets its answer; what is held in memory follows again."""
    restarted = asyncio.Event()

    async def across_a_crash(orchestrator, request) -> None:
        if len(orchestrator.seen) == 1:
            await asyncio.to_thread(stack.bus.kill)
            await asyncio.to_thread(stack.bus.start)
            restarted.set()
            return
        await scripted.hello(orchestrator, request)

    stack.orchestrator.script = across_a_crash
    client = stack.openai()
    task = asyncio.create_task(client.chat.completions.create(model="chat", messages=_ASK))
    await in_time(180, restarted.wait())
    while not stack.orchestrator.bus.client.is_connected:  # noqa: ASYNC110 - the client tells nobody
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.3)
    if len(stack.orchestrator.seen) == 1:
        await scripted.hello(stack.orchestrator, stack.orchestrator.seen[0])

    assert (await task).choices[0].message.content == "Hello, world [1]."
    stack.orchestrator.script = scripted.hello
    await scripted.set_audit(await stack.bus.connect(), writable=False)

    async def is_refused() -> bool:
        try:
            await client.chat.completions.create(model="chat", messages=_ASK)
        except openai.InternalServerError as error:
            return error.code == "audit_unavailable"
        return False

    await scripted.until(is_refused)


async def test_a_taken_port_stops_the_gateway_with_an_error(stack) -> None:
    """A second gateway on the same port does not start."""
    with pytest.raises(OSError, match="in use"):
        async with process.running("gateway", Settings(), start, serve_health=False):
            pass
    with pytest.raises(openai.NotFoundError):
        await stack.openai().models.retrieve("nothing")
