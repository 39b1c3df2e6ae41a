"""Timeouts, failover, overload and accounting, against servers that misbehave on purpose."""

import asyncio
import itertools
import json
from typing import Any

import pytest
from prometheus_client import REGISTRY

from chassis.errors import (
    DeadlineError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    ResourceExhaustedError,
    ServiceError,
    UnavailableError,
)
from chassis.tasks import in_time
from strata.gateway.v1.gateway_events_pb2 import Caller, ChatMessage, Sampling, ToolCall, ToolSpec
from strata.guardrail.v1.guardrail_service_pb2 import Clearance
from strata.inference.v1.inference_service_pb2 import ListModelsRequest

from .conftest import Serve, ask, configuration, deployment, generate
from .upstream import Upstream, event, fails, head, says, upstream


def _one(server: Upstream, **fields: Any) -> dict[str, Any]:
    return configuration({"one": deployment(server.url, **fields)}, "one")


def _two(first: Upstream, second: Upstream) -> dict[str, Any]:
    deployments = {"first": deployment(first.url), "second": deployment(second.url)}
    return configuration(deployments, {"deployment": "first", "fallbacks": ["second"]})


async def test_text_streams_and_the_summary_accounts_for_it(serve: Serve) -> None:
    """Pieces arrive as they are made; tokens, price and time come last."""
    price = {"prompt_per_million": 1_000_000, "completion_per_million": 2_000_000}
    async with upstream(says("Hel", "lo", pause=0.05)) as server, serve(_one(server, price=price)) as stub:
        pieces, done = await generate(stub, ask(sampling=Sampling(max_tokens=9, temperature=0.5, seed=3, stop=["x"])))

    assert pieces == ["Hel", "lo"]
    assert (done.text, done.finish_reason, done.deployment, done.model) == ("Hello", "stop", "one", "base")
    assert (done.usage.prompt_tokens, done.usage.completion_tokens, done.usage.cached_tokens) == (7, 3, 4)
    assert done.cost_usd == 13
    assert 0 < done.first_token_ms < done.total_ms
    (body,) = server.bodies
    assert {"max_tokens": 9, "temperature": 0.5, "seed": 3, "stop": ["x"], "stream": True}.items() <= body.items()
    assert body["stream_options"] == {"include_usage": True}


async def test_metrics_carry_the_names_of_the_conventions(serve: Serve) -> None:
    """Whoever reads gen_ai metrics finds tokens, time to the first token and duration by model."""
    async with upstream(says("x")) as server, serve(_one(server, base_model="metered")) as stub:
        await generate(stub, ask())

    labels = {"gen_ai_operation_name": "chat", "gen_ai_provider_name": "openai", "gen_ai_request_model": "metered"}
    assert REGISTRY.get_sample_value("gen_ai_client_token_usage_sum", {**labels, "gen_ai_token_type": "input"}) == 7
    assert REGISTRY.get_sample_value("gen_ai_server_time_to_first_token_seconds_count", labels) == 1
    assert REGISTRY.get_sample_value("gen_ai_client_operation_duration_seconds_count", {**labels, "error_type": ""}) == 1


async def test_a_deployment_that_is_not_cleared_never_gets_a_session_with_personal_data(serve: Serve) -> None:
    """A fallback that may not see the conversation is not asked even when the first engine is away; without a clearance neither."""
    async with upstream(says("from outside")) as remote, upstream(says("x")) as local:
        content = _two(local, remote)
        content["deployments"]["first"]["url"] = "http://127.0.0.1:9"
        content["deployments"]["second"]["cleared"] = False
        async with serve(content) as stub:
            for clearance in (Clearance(sensitivity="personal", deployments=["first"]), None):
                with pytest.raises(UnavailableError):
                    await generate(stub, ask(clearance=clearance))
            for clearance in (Clearance(sensitivity="personal"), Clearance(sensitivity="personal", deployments=["other"])):
                with pytest.raises(PermissionDeniedError) as refused:
                    await generate(stub, ask(clearance=clearance))
                assert refused.value.code == "policy_denied"
            assert remote.bodies == []
            _, done = await generate(stub, ask(clearance=Clearance(sensitivity="none", deployments=["first", "second"])))

    assert (done.deployment, len(remote.bodies)) == ("second", 1)


async def test_the_key_is_read_from_the_environment(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine sees the key; the configuration names only where it is."""
    monkeypatch.setenv("STRATA_TEST_KEY", "sesame")
    async with upstream(says("x")) as server, serve(_one(server, api_key_env="STRATA_TEST_KEY")) as stub:
        await generate(stub, ask())

    assert server.authorizations == ["Bearer sesame"]


async def test_a_deployment_that_is_away_is_replaced(serve: Serve) -> None:
    """Nobody notices that the first engine refuses connections."""
    async with upstream(says("from the second")) as second, upstream(says("x")) as first:
        content = _two(first, second)
        content["deployments"]["first"]["url"] = "http://127.0.0.1:9"
        async with serve(content) as stub:
            pieces, done = await generate(stub, ask())

    assert (pieces, done.deployment) == (["from the second"], "second")


@pytest.mark.parametrize("status", [429, 500, 503, 401])
async def test_a_deployment_that_fails_before_the_first_token_is_replaced(serve: Serve, status: int) -> None:
    """An overloaded, broken or locked engine costs a moment, not the request."""
    async with upstream(fails(status, "no")) as first, upstream(says("fine")) as second, serve(_two(first, second)) as stub:
        _, done = await generate(stub, ask())

    assert (done.text, done.deployment) == ("fine", "second")
    assert len(first.bodies) == len(second.bodies) == 1


async def test_a_slow_first_token_is_replaced(serve: Serve) -> None:
    """An engine that takes the request and then says nothing loses it, and learns that nobody waits any more."""

    async def silent(_: Upstream, writer: asyncio.StreamWriter, __: dict[str, Any]) -> None:
        writer.write(head())
        await writer.drain()
        await asyncio.sleep(600)

    async with upstream(silent) as first, upstream(says("fine")) as second:
        async with serve(_two(first, second), first_token_timeout_seconds=2) as stub:
            _, done = await generate(stub, ask())
        await in_time(180, first.left_early.wait())

    assert done.deployment == "second"


async def test_after_the_first_token_nothing_is_made_twice(serve: Serve) -> None:
    """When an engine stalls in mid-sentence the caller gets the error, never a second beginning."""

    async def stalls(_: Upstream, writer: asyncio.StreamWriter, __: dict[str, Any]) -> None:
        writer.write(head() + event("Hel"))
        await writer.drain()
        await asyncio.sleep(600)

    async with (
        upstream(stalls) as first,
        upstream(says("fine")) as second,
        serve(_two(first, second), next_token_timeout_seconds=0.3) as stub,
    ):
        with pytest.raises(UnavailableError, match="no further token"):
            await generate(stub, ask())

    assert second.bodies == []


async def test_a_stream_that_breaks_off_is_an_error(serve: Serve) -> None:
    """Half an answer is never taken for a whole one."""

    async def breaks(_: Upstream, writer: asyncio.StreamWriter, __: dict[str, Any]) -> None:
        writer.write(head() + event("Hel"))

    async with upstream(breaks) as server, serve(_one(server)) as stub:
        with pytest.raises(UnavailableError):
            await generate(stub, ask())


async def test_an_endless_generation_ends(serve: Serve) -> None:
    """The total time is bounded however lively the stream is."""
    async with upstream(says(*"x" * 4000, pause=0.05)) as server, serve(_one(server), total_timeout_seconds=2) as stub:
        with pytest.raises(DeadlineError, match="longer than"):
            await generate(stub, ask())


async def test_a_caller_that_leaves_stops_the_engine(serve: Serve) -> None:
    """Nothing is generated for nobody."""
    async with upstream(says(*"x" * 4000, pause=0.05)) as server, serve(_one(server)) as stub:
        call = stub.Generate(ask(), timeout=180)
        assert (await call.read()).delta == "x"
        call.cancel()

        await in_time(180, server.left_early.wait())
        assert server.running == 0


async def test_the_callers_deadline_stops_the_engine(serve: Serve) -> None:
    """A deadline that passes in mid-stream ends the work too."""
    async with upstream(says(*"x" * 4000, pause=0.05)) as server, serve(_one(server)) as stub:
        with pytest.raises(DeadlineError):
            await generate(stub, ask(), seconds=2)

        await in_time(180, server.left_early.wait())


async def test_places_are_bounded_and_so_is_the_queue(serve: Serve) -> None:
    """Beyond the places callers wait, beyond the queue they are told at once."""
    go_on = asyncio.Event()
    async with upstream(says("x", after=go_on)) as server, serve(_one(server, max_concurrency=2, max_queue=1)) as stub:
        asked = [asyncio.create_task(generate(stub, ask())) for _ in range(6)]
        for first in itertools.islice(asyncio.as_completed(asked, timeout=180), 3):
            with pytest.raises(ServiceError):
                await first
        go_on.set()
        results = await asyncio.gather(*asked, return_exceptions=True)

    refused = [result for result in results if isinstance(result, ServiceError)]
    assert (server.most_running, len(server.bodies)) == (2, 3)
    assert [(type(error), error.code) for error in refused] == [(ResourceExhaustedError, "engine_overloaded")] * 3


async def test_a_conversation_that_is_too_long_has_its_own_code(serve: Serve) -> None:
    """The words of the engine become the code that clients know; nobody else is asked."""
    script = fails(400, "This model's maximum context length is 2048 tokens. However, your prompt contains 2049 input tokens")
    async with upstream(script) as first, upstream(says("x")) as second, serve(_two(first, second)) as stub:
        with pytest.raises(InvalidArgumentError) as caught:
            await generate(stub, ask())

    assert caught.value.code == "context_length_exceeded"
    assert second.bodies == []


async def test_names_are_checked_before_any_engine_is_asked(serve: Serve) -> None:
    """Unknown tiers and adapters, and those of other tenants, do not exist for the caller."""
    async with upstream(says("x")) as server:
        adapters = {"mine@v1": {"deployment": "one", "tenants": ["other"]}, "open@v1": "one"}
        async with serve({**_one(server), "adapters": adapters}) as stub:
            for fields in ({"tier": "huge"}, {"adapter": "none@v1"}, {"adapter": "mine@v1"}):
                with pytest.raises(NotFoundError) as caught:
                    await generate(stub, ask(**fields))
                assert caught.value.code == "model_not_found"
            _, done = await generate(stub, ask(adapter="open@v1"))
            await generate(stub, ask(adapter="mine@v1", caller=Caller(tenant="other")))

    assert (done.adapter, done.model) == ("open@v1", "open@v1")
    assert [body["model"] for body in server.bodies] == ["open@v1", "mine@v1"]


async def test_the_bare_model_stands_in_only_where_declared(serve: Serve) -> None:
    """An adapter that the engine lacks is an error, or, where the file says so, an answer that names no adapter."""

    async def script(seen: Upstream, writer: asyncio.StreamWriter, body: dict[str, Any]) -> None:
        chosen = says("bare") if body["model"] == "base" else fails(404, "The model does not exist")
        await chosen(seen, writer, body)

    adapters = {"strict@v1": "one", "lenient@v1": {"deployment": "one", "base_when_missing": True}}
    async with upstream(script) as server, serve({**_one(server), "adapters": adapters}) as stub:
        with pytest.raises(UnavailableError, match="does not serve"):
            await generate(stub, ask(adapter="strict@v1"))
        _, done = await generate(stub, ask(adapter="lenient@v1"))

    assert (done.text, done.adapter, done.model) == ("bare", "", "base")


async def test_an_overloaded_engine_does_not_lose_its_adapter(serve: Serve) -> None:
    """The bare model never answers because the adapter was busy."""
    adapters = {"lenient@v1": {"deployment": "one", "base_when_missing": True}}
    async with upstream(fails(503, "busy")) as server, serve({**_one(server), "adapters": adapters}) as stub:
        with pytest.raises(ResourceExhaustedError):
            await generate(stub, ask(adapter="lenient@v1"))

    assert [body["model"] for body in server.bodies] == ["lenient@v1"]


async def test_a_prompt_is_rendered_and_named(serve: Serve) -> None:
    """The engine reads the template filled in, whole numbers as such; the summary pins the version and its hash."""
    request = ask(prompt="patient-answer@v1")
    request.variables.update({"question": "Why?", "passages": [{"n": 1, "title": "T", "text": "Because.", "version": "1", "date": ""}]})
    async with upstream(says("So [1].")) as server, serve(_one(server)) as stub:
        _, done = await generate(stub, request)
        with pytest.raises(InvalidArgumentError, match="passages"):
            await generate(stub, ask(prompt="patient-answer@v1", variables={"question": "Why?"}))

    system, user = server.bodies[0]["messages"]
    assert system["role"] == "system"
    assert user["content"].startswith("[1] T: Because.")
    assert server.bodies[0]["max_tokens"] == 160
    assert (done.prompt, len(done.prompt_sha256)) == ("patient-answer@v1", 64)


async def test_a_prompt_that_passes_through_goes_before_the_conversation(serve: Serve) -> None:
    """The client's own turns follow the prompt's unchanged."""
    async with upstream(says("x")) as server, serve(_one(server)) as stub:
        await generate(stub, ask("How are you?", prompt="chat@v1"))

    assert [message["role"] for message in server.bodies[0]["messages"]] == ["system", "user"]
    assert server.bodies[0]["messages"][1]["content"] == "How are you?"


_SCHEMA = json.dumps({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})


async def test_a_text_under_a_schema_is_checked_again(serve: Serve) -> None:
    """An engine that ignores the schema is found out; one that keeps it is believed."""
    async with upstream(says('{"n": 1}')) as good, serve(_one(good)) as stub:
        _, done = await generate(stub, ask(schema_json=_SCHEMA))
        assert done.text == '{"n": 1}'
        assert good.bodies[0]["response_format"]["json_schema"]["schema"] == json.loads(_SCHEMA)
        await generate(stub, ask(schema_json="{}"))
        assert good.bodies[1]["response_format"] == {"type": "json_object"}
        good.script = says('{"n": "one"}')
        with pytest.raises(InternalError, match="does not match its schema"):
            await generate(stub, ask(schema_json=_SCHEMA))


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"schema_json": "{"}, "schema_json is not JSON"),
        ({"schema_json": '{"type": "magic"}'}, "not a JSON Schema"),
        ({"schema_json": "{}", "prefix": "{"}, "cannot be continued"),
        ({"messages": []}, "nothing to answer"),
        ({"messages": [ChatMessage(role="wizard", content="x")]}, "unknown role 'wizard'"),
        ({"tier": ""}, "tier or an adapter"),
        ({"tool_choice_json": '{"type":"function","function":{"name":"t"}}'}, "known tools"),
        ({"tools": [ToolSpec(name="t", parameters_json="nope")]}, "not JSON"),
    ],
)
async def test_malformed_requests_are_refused(serve: Serve, fields: dict[str, Any], problem: str) -> None:
    """The caller learns what is wrong; no engine is asked."""
    async with upstream(says("x")) as server, serve(_one(server)) as stub:
        with pytest.raises(InvalidArgumentError, match=problem):
            await generate(stub, ask(**fields))

    assert server.bodies == []


async def test_tools_pass_through_to_an_engine_that_knows_them(serve: Serve) -> None:
    """Kind openai sends tools, earlier calls and answers in the protocol's form and reads calls that come in pieces."""

    async def calls(_: Upstream, writer: asyncio.StreamWriter, __: dict[str, Any]) -> None:
        first = {"index": 0, "id": "c1", "function": {"name": "look", "arguments": '{"q"'}}
        deltas = [{"tool_calls": [first]}, {"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]}]
        writer.write(head())
        for delta in deltas:
            writer.write(b"data: " + json.dumps({"choices": [{"delta": delta}]}).encode() + b"\n\n")
        writer.write(event(finish="tool_calls") + event(usage=True) + b"data: [DONE]\n\n")

    turns = [
        ChatMessage(role="user", content="x"),
        ChatMessage(role="assistant", tool_calls=[ToolCall(id="c0", name="look", arguments_json="{}")]),
        ChatMessage(role="tool", tool_call_id="c0", content="nothing"),
    ]
    tool = ToolSpec(name="look", description="Looks.", parameters_json='{"type": "object"}')
    async with upstream(calls) as server, serve(_one(server)) as stub:
        pieces, done = await generate(stub, ask(messages=turns, tools=[tool], tool_choice_json='"required"'))

    assert pieces == []
    assert done.finish_reason == "tool_calls"
    assert [(call.id, call.name, call.arguments_json) for call in done.tool_calls] == [("c1", "look", '{"q": 1}')]
    body = server.bodies[0]
    assert body["tool_choice"] == "required"
    assert body["messages"][1]["tool_calls"][0]["id"] == body["messages"][2]["tool_call_id"] == "c0"


async def test_tools_are_decoded_under_a_schema_where_the_model_cannot_choose(serve: Serve) -> None:
    """Kind vllm turns tools into a schema and its answer into a call, or into text when the model says that it answers."""
    parameters = '{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}'
    tool = ToolSpec(name="weather", description="Weather of a city.", parameters_json=parameters)
    decides = says('{"tool": "weather", ', '"arguments": {"city": "Bern"}}')
    async with upstream(decides) as server, serve(_one(server, kind="vllm")) as stub:
        pieces, done = await generate(stub, ask(tools=[tool], tool_choice_json='"required"'))
        assert pieces == []
        assert [(call.name, json.loads(call.arguments_json)) for call in done.tool_calls] == [("weather", {"city": "Bern"})]
        assert done.finish_reason == "tool_calls"
        assert "tools" not in server.bodies[0]

        server.script = says('{"answer": "Sunny."}')
        pieces, done = await generate(stub, ask(tools=[tool]))
        assert (pieces, done.text, done.finish_reason) == (["Sunny."], "Sunny.", "stop")

        server.script = says('{"tool": "weather", "arguments": {}}')
        with pytest.raises(InternalError, match="do not match its schema"):
            await generate(stub, ask(tools=[tool]))


async def test_vllm_continues_a_text(serve: Serve) -> None:
    """What was released already is the beginning of the assistant's turn, and of the whole text."""
    async with upstream(says(" world")) as server, serve(_one(server, kind="vllm")) as stub:
        pieces, done = await generate(stub, ask(prefix="Hello"))

    body = server.bodies[0]
    assert body["messages"][-1] == {"role": "assistant", "content": "Hello"}
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)
    assert (pieces, done.text) == ([" world"], "Hello world")


async def test_models_are_listed_with_what_is_ready_now(serve: Serve) -> None:
    """Tiers and adapters say whether the engine serves them, which changes as the engine does."""
    adapters = {"have@v1": {"deployment": "one", "tenants": ["acme"]}, "lack@v1": "one"}
    async with upstream(says("x")) as server, serve({**_one(server, kind="vllm"), "adapters": adapters}) as stub:
        server.models = ["base", "have@v1"]

        async def until(expected: dict[str, bool]) -> Any:
            async with asyncio.timeout(180):
                while True:
                    listed = await stub.ListModels(ListModelsRequest(), timeout=180)
                    if expected.items() <= {entry.name: entry.ready for entry in listed.models}.items():
                        return listed
                    await asyncio.sleep(0.02)

        await until({"small": True, "have@v1": True, "lack@v1": False})
        server.healthy = False
        listed = await until({"small": False, "have@v1": False})

    assert [list(entry.tenants) for entry in listed.models if entry.name == "have@v1"] == [["acme"]]
    assert {"patient-answer@v1", "chat@v1"} <= {entry.name for entry in listed.prompts}
