"""Any process may die at any moment: nothing accepted is lost, answered twice or missing from the record."""

import asyncio
import json
import uuid
from collections import Counter

import httpx
import nats
import pytest
from stack import Stack

from audit.verification import verify
from chassis.provisioning import PROVISIONER
from contracts.identities import NATS_PORT

pytestmark = pytest.mark.system

# A process that was killed needs seconds to start, and on a machine with other work many of them.
_PATIENCE_SECONDS = 300

QUESTIONS = (
    ("What are the opening hours of the pharmacy on Saturday?", {}),
    ("When is my next appointment?", {"patient_id": "P-1001"}),
    ("What are the symptoms of dehydration in children?", {}),
    ("Who won the football cup final last night?", {}),
)


async def _ask(client: httpx.AsyncClient, stack: Stack, key: str, number: int, idempotency_key: str) -> httpx.Response:
    """Ask as a client with a retry policy does: the same idempotency key until there is an answer."""
    text, context = QUESTIONS[number % len(QUESTIONS)]
    body = {"model": "healthcare-triage", "messages": [{"role": "user", "content": text}], "strata": {"context": context}}
    headers = {"authorization": f"Bearer {key}", "idempotency-key": idempotency_key}
    until, last = asyncio.get_running_loop().time() + _PATIENCE_SECONDS, "none"
    while asyncio.get_running_loop().time() < until:
        try:
            response = await client.post(f"{stack.url}/v1/chat/completions", json=body, headers=headers)
        except httpx.TransportError:
            await asyncio.sleep(0.5)
            continue
        if response.status_code not in {503, 504, 429}:
            return response
        last = response.text[:300]
        await asyncio.sleep(0.5)
    raise AssertionError(f"no answer within {_PATIENCE_SECONDS} s; the last was {last}")


async def _responses(stack: Stack, tenant: str) -> Counter[str]:
    """Count the final windows in the stream by request."""
    seed = stack.state / "credentials" / PROVISIONER / "nats.seed"
    client = await nats.connect(f"nats://127.0.0.1:{NATS_PORT + stack.offset}", nkeys_seed=str(seed))
    reader = await client.jetstream(timeout=120).subscribe(f"strata.v1.response.{tenant}.*", ordered_consumer=True)
    finals: Counter[str] = Counter()
    left = 1
    while left:
        message = await reader.next_msg(timeout=180)
        left, response = message.metadata.num_pending, json.loads(message.data)
        if "completion" in response or response.get("error_code"):
            finals[response["request_id"]] += 1
    await client.close()
    return finals


async def _ask_while_killing(stack: Stack, tenant: str, count: int, victim: str, after: float) -> list[httpx.Response]:
    key = await asyncio.to_thread(stack.key, tenant, "patient_portal")
    async with httpx.AsyncClient(timeout=180, limits=httpx.Limits(max_connections=count)) as client:
        asking = [asyncio.create_task(_ask(client, stack, key, n, uuid.uuid4().hex)) for n in range(count)]
        await asyncio.sleep(after)
        await asyncio.to_thread(stack.kill, victim)
        return await asyncio.gather(*asking)


VICTIMS = (
    "gateway",
    "orchestrator",
    "guardrail",
    "router",
    "retriever",
    "ingestor",
    "tool_sandbox",
    "inference",
    "engine",
    "audit",
    "nats",
)


@pytest.mark.parametrize("victim", VICTIMS)
async def test_no_request_is_lost_when_a_process_is_killed(stack: Stack, victim: str) -> None:
    """Four requests are under way when the process dies; all are answered, once, and all is on record."""
    await asyncio.to_thread(stack.wait_ready)
    tenant = f"kill-{victim.replace('_', '-')}"

    answers = await _ask_while_killing(stack, tenant, 4, victim, after=0.15)
    await asyncio.to_thread(stack.wait_ready)

    assert [answer.status_code for answer in answers] == [200] * 4, [answer.text[:300] for answer in answers]
    identifiers = [answer.headers["x-request-id"] for answer in answers]
    finals = await _responses(stack, tenant)
    assert {finals[i] for i in identifiers} == {1}
    for identifier in identifiers:
        records = await asyncio.to_thread(stack.trace, identifier, "request", "screen", "release", "response")
        assert len({record["record_id"] for record in records}) == len(records)
    log = await asyncio.to_thread(verify, stack.state / "audit")
    assert log.intact, log.problem


async def test_fifty_requests_survive_the_orchestrator(stack: Stack) -> None:
    """With fifty in flight and the orchestrator killed, none is lost and no finished step runs again; an attempt to release may."""
    await asyncio.to_thread(stack.wait_ready)

    answers = await _ask_while_killing(stack, "kill-fifty", 50, "orchestrator", after=1.0)

    assert [answer.status_code for answer in answers] == [200] * 50
    identifiers = [answer.headers["x-request-id"] for answer in answers]
    finals = await _responses(stack, "kill-fifty")
    assert {finals[i] for i in identifiers} == {1}
    for identifier in identifiers:
        records = await asyncio.to_thread(stack.trace, identifier, "request", "screen", "release", "response")
        succeeded = Counter(
            r["step_id"]
            for r in records
            if r["service"] == "orchestrator" and r["outcome"] == "succeeded" and r.get("step_id") and r.get("phase") != "attempted"
        )
        assert max(succeeded.values()) == 1, succeeded
