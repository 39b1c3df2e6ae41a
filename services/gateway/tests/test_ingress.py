"""Requests over the bus: the same rules, and the answer on the client's own subject."""

import asyncio
import json

import pytest
import scripted

from chassis.messaging import decode
from contracts.subjects import RESPONSE

_BODY = {"model": "auto", "messages": [{"role": "user", "content": "Hello?"}], "max_tokens": 20}


class _Asker:
    """A tenant's system on the bus."""

    def __init__(self, stack) -> None:
        self.stack = stack

    async def ask(self, key, request_id="r-1", *, tenant="acme", body=None, idempotency_key="", wanted="answer"):
        """Publish a request; return the error or the last window that arrives on its subject."""
        arrived: asyncio.Queue = asyncio.Queue()
        subscription = await self.stack.admin.subscribe(f"strata.v1.response.{tenant}.{request_id or '*'}", cb=arrived.put)
        message = {"body": body or _BODY, "request_id": request_id, "idempotency_key": idempotency_key}
        headers = {"Authorization": f"Bearer {key}"}
        subject = f"strata.v1.request.interactive.{tenant}"
        await self.stack.admin.jetstream().publish(subject, json.dumps(message).encode(), headers=headers)
        try:
            async with asyncio.timeout(180 if wanted else 0.5):
                while True:
                    response = decode(RESPONSE, (await arrived.get()).data)
                    if (wanted == "error" and response.error_code) or (wanted == "answer" and response.HasField("completion")):
                        return response
        except TimeoutError:
            return None
        finally:
            await subscription.unsubscribe()


@pytest.mark.parametrize("request_id", ["r-1", ""])
async def test_a_request_on_the_bus_is_answered_on_the_bus(stack, request_id) -> None:
    """The client's identifier is kept; without one the gateway chooses."""
    response = await _Asker(stack).ask(stack.key, request_id)

    (request,) = stack.orchestrator.seen
    assert response.release.text == "world [1]."
    assert request.request_id == (request_id or response.request_id)
    assert (request.caller.tenant, request.sampling.max_tokens, request.request_class) == ("acme", 20, "interactive")
    (recorded,) = await scripted.records(stack.admin, "request")
    assert recorded.details["ingress"] == "nats"


async def test_a_refusal_is_a_response_with_its_code(stack) -> None:
    """A wrong key, another tenant's subject, a role without rights and a bad body are answered, and nothing runs."""
    asker, stranger = _Asker(stack), await stack.new_key(role="nobody")
    unknown = {"model": "gpt-4", "messages": [{"role": "user", "content": "x"}]}
    answers = [
        await asker.ask("sk-wrong", "r-1", wanted="error"),
        await asker.ask(stack.key, "r-2", tenant="globex", wanted="error"),
        await asker.ask(stranger, "r-3", wanted="error"),
        await asker.ask(stack.key, "r-4", body=unknown, wanted="error"),
        await asker.ask(stack.key, "r-5", body={"messages": "x"}, wanted="error"),
    ]

    codes = ["invalid_api_key", "permission_denied", "permission_denied", "model_not_found", "invalid_request"]
    assert [answer.error_code for answer in answers] == codes
    assert not any(answer.HasField("release") for answer in answers)
    assert stack.orchestrator.seen == []


async def test_a_repeat_on_the_bus_runs_once(stack) -> None:
    """The same identifier or key runs once; with another body, or from another tenant, it is a conflict."""
    asker = _Asker(stack)
    await asker.ask(stack.key, "r-1")
    await asker.ask(stack.key, "r-1", wanted="")
    changed = await asker.ask(stack.key, "r-1", body=_BODY | {"seed": 3}, wanted="error")
    other = await asker.ask(await stack.new_key(tenant="globex"), "r-1", tenant="globex", wanted="error")
    await asker.ask(stack.key, "r-2", idempotency_key="k")
    elsewhere = await asker.ask(stack.key, "r-3", idempotency_key="k", wanted="error")

    assert [request.request_id for request in stack.orchestrator.seen] == ["r-1", "r-2"]
    assert {changed.error_code, other.error_code, elsewhere.error_code} == {"idempotency_conflict"}


async def test_what_cannot_be_answered_is_buried(stack) -> None:
    """A reserved identifier or a body that is no request ends in the dead letters, not in a loop."""
    js = stack.admin.jetstream()
    await js.publish("strata.v1.request.interactive.acme", b"{not json")
    await js.publish("strata.v1.request.interactive.acme", json.dumps({"body": _BODY, "request_id": "req_of_http"}).encode())
    for _ in range(3600):
        await asyncio.sleep(0.05)
        if (await js.stream_info("DEAD")).state.messages == 2:
            break

    assert (await js.stream_info("DEAD")).state.messages == 2
    assert stack.orchestrator.seen == []
