"""The service in front of a real vLLM, by both kinds of provider."""

import asyncio
import json
import re
import urllib.request
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from chassis.errors import InvalidArgumentError, UnavailableError
from strata.gateway.v1.gateway_events_pb2 import ChatMessage, Sampling, ToolCall, ToolSpec
from strata.inference.v1.inference_service_pb2 import ListModelsRequest
from testkit.vllm import BASE_MODEL, Vllm

from .conftest import Serve, ask, configuration, deployment, generate

pytestmark = pytest.mark.model

_PATIENCE = {"first_token_timeout_seconds": 400, "next_token_timeout_seconds": 120, "total_timeout_seconds": 580}
_QUESTION = "What is the capital of France?"
_TOOL = ToolSpec(
    name="stock",
    description="How many of an item a store has.",
    parameters_json=json.dumps(
        {
            "type": "object",
            "properties": {"item": {"type": "string", "maxLength": 20}, "store": {"type": "integer"}},
            "required": ["item", "store"],
            "additionalProperties": False,
        }
    ),
)


@pytest_asyncio.fixture
async def stub(serve: Serve, vllm: Vllm, other_vllm: Vllm, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """Tier small is one engine as vllm, tier large a second process as any OpenAI-compatible URL, with a key of its own."""
    monkeypatch.setenv("STRATA_TEST_ENGINE_KEY", vllm.api_key)
    monkeypatch.setenv("STRATA_TEST_OTHER_KEY", other_vllm.api_key)
    ours = deployment(vllm.url, kind="vllm", base_model=BASE_MODEL, api_key_env="STRATA_TEST_ENGINE_KEY")
    other = deployment(other_vllm.url, base_model=BASE_MODEL, api_key_env="STRATA_TEST_OTHER_KEY")
    content = configuration({"v": ours, "o": other}, "v")
    content["tiers"]["large"] = "o"
    names = [name for name in vllm.models() if name != BASE_MODEL]
    content["adapters"] = dict.fromkeys(names, "v") | {
        "absent@v1": "v",
        "stands-in@v1": {"deployment": "v", "base_when_missing": True},
    }
    async with serve(content, **_PATIENCE) as running:
        yield running


def _short(tokens: int = 12) -> Sampling:
    return Sampling(max_tokens=tokens, temperature=0)


@pytest.mark.parametrize("tier", ["small", "large"])
async def test_text_streams(stub: Any, tier: str) -> None:
    """Both kinds give the answer in pieces, with tokens counted by the engine."""
    pieces, done = await generate(stub, ask(_QUESTION, tier=tier, sampling=_short()), seconds=500)

    assert "Paris" in done.text
    assert len(pieces) > 1
    assert "".join(pieces) == done.text
    assert done.usage.prompt_tokens > 20
    assert 2 < done.usage.completion_tokens <= 12
    assert 0 < done.first_token_ms < done.total_ms


async def test_two_engines_answer_at_the_same_time(stub: Any, vllm: Vllm, other_vllm: Vllm) -> None:
    """Each tier is answered by the deployment that the configuration names, both at once and counted apart."""
    requests = [ask(_QUESTION, tier=tier, sampling=_short()) for tier in ("small", "large")]
    answers = await asyncio.gather(*(generate(stub, request, seconds=500) for request in requests))

    assert vllm.url != other_vllm.url
    assert [done.deployment for _, done in answers] == ["v", "o"]
    assert all("Paris" in done.text for _, done in answers)


async def test_a_released_beginning_is_continued(stub: Any) -> None:
    """The new text follows the old one and does not repeat it."""
    pieces, done = await generate(stub, ask(_QUESTION, prefix="The capital of", sampling=_short()), seconds=500)

    assert done.text.startswith("The capital of")
    assert re.match(r"\s*France", "".join(pieces))


@pytest.mark.parametrize("tier", ["small", "large"])
async def test_a_schema_binds_the_text(stub: Any, tier: str) -> None:
    """Even a model that was not asked for JSON writes what the schema says."""
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}, "sure": {"type": "boolean"}},
        "required": ["city", "sure"],
        "additionalProperties": False,
    }
    _, done = await generate(stub, ask(_QUESTION, tier=tier, schema_json=json.dumps(schema), sampling=_short(40)), seconds=500)

    value = json.loads(done.text)
    assert value["city"] in ("Paris", "Rome")
    assert isinstance(value["sure"], bool)


async def test_a_schema_that_the_engine_cannot_follow_is_the_callers_fault(stub: Any) -> None:
    """What the grammar compiler refuses is refused to the caller with its reason."""
    schema = json.dumps({"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}, "required": ["a"]})

    with pytest.raises(InvalidArgumentError):
        await generate(stub, ask(schema_json=schema, sampling=_short()), seconds=500)


async def test_a_named_tool_is_called_with_valid_arguments(stub: Any) -> None:
    """The arguments match the tool's schema, though the model was never trained on tools."""
    choice = '{"type": "function", "function": {"name": "stock"}}'
    request = ask("How many lamps are in store 12?", tools=[_TOOL], tool_choice_json=choice, sampling=_short(60))
    pieces, done = await generate(stub, request, seconds=500)

    (call,) = done.tool_calls
    arguments = json.loads(call.arguments_json)
    assert (call.name, pieces) == ("stock", [])
    assert call.id
    assert set(arguments) == {"item", "store"}
    assert isinstance(arguments["store"], int)


async def test_with_auto_the_model_calls_or_answers(stub: Any) -> None:
    """Whatever it decides is well-formed: one call, or a text."""
    _, done = await generate(stub, ask("How many lamps are in store 12?", tools=[_TOOL], sampling=_short(80)), seconds=500)

    assert bool(done.text) != bool(done.tool_calls)
    assert done.finish_reason == ("tool_calls" if done.tool_calls else "stop")


async def test_the_answer_of_a_tool_becomes_a_text(stub: Any) -> None:
    """After the client ran the tool the model speaks."""
    turns = [
        ChatMessage(role="user", content="How many lamps are in store 12?"),
        ChatMessage(role="assistant", tool_calls=[ToolCall(id="c", name="stock", arguments_json='{"item": "lamp", "store": 12}')]),
        ChatMessage(role="tool", tool_call_id="c", content='{"count": 4}'),
    ]
    _, done = await generate(stub, ask(messages=turns, tools=[_TOOL], sampling=_short()), seconds=500)

    assert done.text
    assert not done.tool_calls


async def test_an_adapter_is_chosen_by_name(stub: Any, vllm: Vllm) -> None:
    """The summary names the adapter that the engine used, and the catalogue knows its weights."""
    if (name := "symptom-extract@v1") not in vllm.models():
        pytest.skip(f"{name} is not trained yet")
    request = ask(adapter=name, prompt=name, sampling=_short(160), messages=[])
    request.variables["question"] = "43-year-old male. Chest pain for 3 days. No fever."

    _, done = await generate(stub, request, seconds=500)

    listed = {entry.name: entry for entry in (await stub.ListModels(ListModelsRequest(), timeout=180)).models}
    assert (done.adapter, done.model, done.prompt) == (name, name, name)
    assert listed[name].ready
    value = json.loads(done.text)
    assert (value["age"], value["sex"]) == (43, "male")


async def test_an_adapter_that_is_not_loaded(stub: Any) -> None:
    """The engine's refusal is an error, or the bare model's answer where the configuration says so."""
    with pytest.raises(UnavailableError, match="does not serve"):
        await generate(stub, ask(_QUESTION, adapter="absent@v1", sampling=_short(2)), seconds=500)

    _, done = await generate(stub, ask(_QUESTION, adapter="stands-in@v1", sampling=_short(2)), seconds=500)

    assert (done.adapter, done.model) == ("", BASE_MODEL)


@pytest.mark.parametrize("tier", ["small", "large"])
async def test_a_conversation_that_is_too_long(stub: Any, tier: str) -> None:
    """More tokens than the model can read have the code that clients know."""
    with pytest.raises(InvalidArgumentError) as caught:
        await generate(stub, ask("word " * 3000, tier=tier), seconds=500)

    assert caught.value.code == "context_length_exceeded"


def _running(vllm: Vllm) -> float:
    with urllib.request.urlopen(f"{vllm.url}/metrics", timeout=180) as response:  # noqa: S310 - http, to ourselves
        lines = response.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("vllm:num_requests_running{"))


async def test_a_caller_that_leaves_stops_vllm(stub: Any, vllm: Vllm) -> None:
    """The engine has nothing to do soon after, long before the story would be told."""
    call = stub.Generate(ask("Tell me a very long story.", sampling=Sampling(max_tokens=1500, temperature=0)), timeout=500)
    assert (await call.read()).delta
    assert await asyncio.to_thread(_running, vllm) >= 1
    call.cancel()

    for _ in range(120):
        if await asyncio.to_thread(_running, vllm) == 0:
            return
        await asyncio.sleep(0.5)
    pytest.fail("the engine still generates")
