"""The main job from outside: what clients send, what they get, and what is on record."""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import nats
import openai
import pytest
from stack import Stack

from cli.demonstration import problems, samples, send
from cli.place import Place
from contracts.identities import NATS_PORT, inbox_prefix

pytestmark = pytest.mark.system


@pytest.mark.parametrize("sample", samples(), ids=lambda sample: f"{sample['domain']}-{sample['name']}")
def test_every_sample_request_is_answered_as_it_must_be(stack: Stack, sample: dict) -> None:
    """Each domain's samples go through the whole stack and come back as their file says."""
    outcome = send(Place(stack.state, stack.offset), stack.key("demo", sample["role"]), sample, show=False)

    assert problems(sample, outcome) == []


def _ask(stack: Stack, text: str, *, role: str = "patient_portal", tenant: str = "demo", **extra) -> httpx.Response:
    body = {"model": "healthcare-triage", "messages": [{"role": "user", "content": text}], **extra}
    headers = {"authorization": f"Bearer {stack.key(tenant, role)}"}
    return httpx.post(f"{stack.url}/v1/chat/completions", json=body, headers=headers, timeout=180)


def test_the_whole_story_of_a_grounded_answer_is_on_record(stack: Stack) -> None:
    """Every step is in the log, in order, and the log verifies."""
    response = _ask(stack, "What are the symptoms of dehydration in children?")
    request_id = response.headers["x-request-id"]

    records = stack.trace(request_id, "request", "screen", "route", "retrieve", "generate", "release", "response")

    assert response.json()["strata"]["status"] == "completed"
    assert {record["trace_id"] for record in records} == {response.json()["strata"]["trace_id"]}
    assert "dehydration in children" not in json.dumps(records[0])
    verified = json.loads(stack.strata("audit", "verify", "--json").stdout)
    assert verified["intact"]
    assert verified["size"] >= len(records)


def test_another_tenant_cannot_read_a_request_or_its_trace(stack: Stack) -> None:
    """To everyone else the request does not exist."""
    request_id = _ask(stack, "What are the opening hours of the pharmacy on Saturday?").headers["x-request-id"]
    other = {"authorization": f"Bearer {stack.key('other', 'nurse')}"}

    answers = [httpx.get(f"{stack.url}/v1/{kind}/{request_id}", headers=other, timeout=120) for kind in ("requests", "traces")]

    assert [answer.status_code for answer in answers] == [404, 404]


def test_an_urgent_message_waits_for_a_person_and_is_announced(stack: Stack) -> None:
    """The client is told to wait, and an escalation is on record under the request's id."""
    response = _ask(stack, "I have crushing chest pain and cannot breathe.")

    assert response.json()["strata"]["status"] == "pending_review"
    assert stack.trace(response.headers["x-request-id"], "escalate", "release")


def test_a_nurse_decides_and_the_patient_gets_the_answer(stack: Stack, tmp_path: Path) -> None:
    """Escalated, claimed, corrected, released: the whole way is on record, and consent makes it an example."""
    response = _ask(stack, "My chest hurts badly, I have chest pain.", strata={"context": {"consent": "training"}})
    name, nurse = response.headers["x-request-id"], stack.key("demo", "nurse")
    reviews = httpx.Client(base_url=f"{stack.url}/v1/reviews/{name}", headers={"authorization": f"Bearer {nurse}"}, timeout=120)
    _until(lambda: reviews.post("/claim").status_code == 200)
    shown = reviews.get("").json()
    stack.strata("review", "decide", name, "correct", "--text", "Call 112 now.", "--label", "urgent", "--key", nurse)
    patient = {"authorization": f"Bearer {stack.key('demo', 'patient_portal')}"}
    answer = httpx.get(f"{stack.url}/v1/requests/{name}", params={"wait": 120}, headers=patient, timeout=180).json()
    stack.strata("review", "export", "--out", str(tmp_path / "sft.jsonl"))

    assert shown["trace"]
    assert "chest pain" in shown["messages"][-1]["content"]
    assert (answer["status"], answer["completion"]["choices"][0]["message"]["content"]) == ("reviewed", "Call 112 now.")
    assert stack.trace(name, "escalate", "review", "release", "response")
    examples = [json.loads(line) for line in (tmp_path / "sft.jsonl").read_text().splitlines()]
    assert [example["messages"][-1]["content"] for example in examples] == ["Call 112 now."]


def _until(done: Callable[[], bool], *, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_the_official_client_streams_and_gets_typed_errors(stack: Stack) -> None:
    """The openai SDK needs nothing but another base URL."""
    client = openai.OpenAI(base_url=f"{stack.url}/v1", api_key=stack.key("demo", "app"), max_retries=0, timeout=180)

    chunks = list(client.chat.completions.create(model="chat", messages=[{"role": "user", "content": "Say hello."}], stream=True))
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="no-such-model", messages=[{"role": "user", "content": "x"}])

    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert unknown.value.code == "model_not_found"
    assert "chat" in {model.id for model in client.models.list()}


def test_tool_calls_and_json_schema_come_back_as_the_api_promises(stack: Stack) -> None:
    """Decoding is constrained: a forced tool call has arguments that match, a schema response parses."""
    client = openai.OpenAI(base_url=f"{stack.url}/v1", api_key=stack.key("demo", "app"), max_retries=0, timeout=180)
    tool = {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    }
    schema = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"], "additionalProperties": False}

    called = client.chat.completions.create(
        model="chat", messages=[{"role": "user", "content": "What is the weather in Paris?"}], tools=[tool], tool_choice="required"
    )
    shaped = client.chat.completions.create(
        model="chat",
        messages=[{"role": "user", "content": "Pick a colour."}],
        response_format={"type": "json_schema", "json_schema": {"name": "c", "schema": schema, "strict": True}},
    )

    assert called.choices[0].finish_reason == "tool_calls"
    assert isinstance(json.loads(called.choices[0].message.tool_calls[0].function.arguments)["city"], str)
    assert json.loads(shaped.choices[0].message.content)["colour"] in {"red", "blue"}


async def test_a_tenants_own_system_asks_over_the_bus(stack: Stack) -> None:
    """A request published on the tenant's subject is answered on its response subject; another tenant's stays closed."""
    key = await asyncio.to_thread(stack.key, "demo", "patient_portal", nats=True)
    user = key.split("-")[2]
    errors: list[str] = []

    async def on_error(error: Exception) -> None:
        errors.append(str(error))

    url = f"nats://127.0.0.1:{NATS_PORT + stack.offset}"
    client = await nats.connect(url, user=user, password=key, inbox_prefix=inbox_prefix(user).encode(), error_cb=on_error)
    answers = await client.subscribe("strata.v1.response.demo.>")
    await client.subscribe("strata.v1.response.other.>")
    question = {
        "model": "healthcare-triage",
        "messages": [{"role": "user", "content": "What are the opening hours of the pharmacy on Saturday?"}],
    }
    body = json.dumps({"body": question, "request_id": "bus-request-1"}).encode()
    await client.publish("strata.v1.request.interactive.demo", body, headers={"authorization": f"Bearer {key}"})
    answer = json.loads((await answers.next_msg(timeout=180)).data)
    await client.close()

    assert answer["request_id"] == "bus-request-1"
    assert "Sat 09:00-13:00" in answer["release"]["text"]
    assert any("permissions violation" in error.lower() for error in errors)
