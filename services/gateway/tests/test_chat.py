"""Chat completions as the official client sees them."""

import asyncio
import json

import openai
import pytest
import scripted

_ASK = [{"role": "user", "content": "Hello?"}]
_WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


async def test_an_answer_has_openai_s_shape_and_the_strata_object(stack) -> None:
    """Text, usage, citations and the way it was made arrive in one completion."""
    answer = await stack.openai().chat.completions.create(model="auto", messages=_ASK, extra_body={"strata": {"session_id": "s1"}})

    assert answer.choices[0].message.content == "Hello, world [1]."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "patient-answer@v1"
    assert answer.usage.total_tokens == 42
    about = answer.model_extra["strata"]
    assert about["status"] == "completed"
    assert about["citations"][0]["title"] == "Fever"
    assert about["usage_by_step"]["answer"]["completion_tokens"] == 12
    assert about["request_id"] == answer._request_id
    assert stack.orchestrator.seen[0].workflow == "chat"
    assert stack.orchestrator.seen[0].session_id == "s1"
    while len(kept := await scripted.records(stack.admin)) < 3:  # noqa: ASYNC110 - the last record tells nobody
        await asyncio.sleep(0.02)
    assert [(record.step, record.outcome, record.phase) for record in kept] == [
        ("request", "succeeded", ""), ("response", "succeeded", "attempted"), ("response", "succeeded", "verified"),
    ]  # fmt: skip
    assert {record.user for record in kept} == {"u1"}


async def test_a_stream_arrives_window_by_window_and_ends_with_usage_and_strata(stack) -> None:
    """The windows are chunks; usage and `strata` ride on the tail chunk."""
    stream = await stack.openai().chat.completions.create(model="chat", messages=_ASK, stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]

    assert [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content] == ["Hello", ", ", "world [1]."]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == 42
    assert chunks[-1].model_extra["strata"]["adapter"] == "patient-answer@v1"


async def test_a_stream_without_usage_has_strata_on_the_finish_chunk(stack) -> None:
    """Who did not ask for usage gets no chunk without choices."""
    stream = await stack.openai().chat.completions.create(model="auto", messages=_ASK, stream=True)
    chunks = [chunk async for chunk in stream]

    assert all(chunk.choices for chunk in chunks)
    assert chunks[-1].model_extra["strata"]["status"] == "completed"


@pytest.mark.parametrize("streamed", [False, True])
async def test_tool_calls_pass_both_ways(stack, streamed) -> None:
    """The client's tools reach the orchestrator, and the call that was released reaches the client."""

    async def call_tool(orchestrator, request) -> None:
        final = scripted.completion(finish_reason="tool_calls")
        await orchestrator.send(request, orchestrator.signer.window(request, 0, "", final=final, calls=[scripted.tool_call()]))

    stack.orchestrator.script = call_tool
    answer = await stack.openai().chat.completions.create(
        model="auto", messages=_ASK, tools=[_WEATHER], tool_choice="required", stream=streamed
    )
    if streamed:
        chunks = [chunk async for chunk in answer]
        (call,) = [c for chunk in chunks for c in chunk.choices[0].delta.tool_calls or ()]
        reason = chunks[-1].choices[0].finish_reason
    else:
        (call,), reason = answer.choices[0].message.tool_calls, answer.choices[0].finish_reason

    assert (call.id, call.function.name, json.loads(call.function.arguments)) == ("call_1", "get_weather", {"city": "Bern"})
    assert reason == "tool_calls"
    request = stack.orchestrator.seen[0]
    assert request.tools[0].name == "get_weather"
    assert request.tool_choice_json == '"required"'


async def test_schema_and_sampling_reach_the_orchestrator(stack) -> None:
    """What the client asks of the generation is carried unchanged, and unknown fields are ignored."""
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    await stack.openai().chat.completions.create(
        model="auto",
        messages=[{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        temperature=0.2,
        top_p=0.9,
        seed=7,
        stop="END",
        max_completion_tokens=9,
        extra_body={"unknown_field": 1, "strata": {"context": {"vip": True}, "filters": {"a": "b"}, "as_of": "2026-01-01T00:00:00Z"}},
    )

    request = stack.orchestrator.seen[0]
    assert json.loads(request.response_schema_json) == schema
    assert request.messages[0].content == "ab"
    assert (request.sampling.seed, request.sampling.max_tokens, list(request.sampling.stop)) == (7, 9, ["END"])
    assert request.context["vip"] is True
    assert request.as_of.seconds == 1767225600


async def test_other_statuses_are_answers(stack) -> None:
    """Pending, abstained, and blocked after a model ran are 200 with their status."""
    cases = [("pending_review", "", "stop"), ("abstained", "", "stop"), ("blocked", "m", "content_filter")]
    left = iter(cases)

    async def answer(orchestrator, request) -> None:
        status, model, _ = next(left)
        final = scripted.completion(status=status, model=model, adapter="")
        await orchestrator.send(request, orchestrator.signer.window(request, 0, "A notice.", final=final))

    stack.orchestrator.script = answer
    results = [await stack.openai().chat.completions.create(model="auto", messages=_ASK) for _ in cases]

    assert [result.choices[0].finish_reason for result in results] == [expected for _, _, expected in cases]
    assert [result.model_extra["strata"]["status"] for result in results] == [status for status, _, _ in cases]
    assert {result.model for result in results} == {"chat"}


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_block_before_a_model_ran_is_a_refusal_with_its_reason(stack, streamed) -> None:
    """An injection gets 400 content_policy_violation, as plain JSON in a stream too."""

    async def block(orchestrator, request) -> None:
        final = scripted.completion(status="blocked", model="", adapter="", code="prompt_injection")
        await orchestrator.send(request, orchestrator.signer.window(request, 0, "Refused.", final=final))

    stack.orchestrator.script = block
    with pytest.raises(openai.BadRequestError) as caught:
        await stack.openai().chat.completions.create(model="auto", messages=_ASK, stream=streamed)

    assert caught.value.code == "content_policy_violation"
    assert caught.value.body["reason"] == "prompt_injection"


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_error_of_the_run_is_an_error_of_http(stack, streamed) -> None:
    """The code's status and the catalogue's text reach the client, and nothing else does."""

    async def fail(orchestrator, request) -> None:
        response = scripted.ResponseReleased(request_id=request.request_id, trace_id=request.trace_id, error_code="engine_overloaded")
        await orchestrator.send(request, response)

    stack.orchestrator.script = fail
    with pytest.raises(openai.InternalServerError) as caught:
        await stack.openai().chat.completions.create(model="auto", messages=_ASK, stream=streamed)

    assert (caught.value.status_code, caught.value.code) == (503, "engine_overloaded")
    assert caught.value.response.headers["retry-after"] == "1"


async def test_a_failure_in_the_middle_of_a_stream_is_an_error_event(stack) -> None:
    """What was released arrives, then the error; the client raises it."""

    async def fail(orchestrator, request) -> None:
        await orchestrator.send(request, orchestrator.signer.window(request, 0, "Hello"))
        await asyncio.sleep(0.1)
        response = scripted.ResponseReleased(request_id=request.request_id, trace_id=request.trace_id, error_code="engine_overloaded")
        await orchestrator.send(request, response)

    stack.orchestrator.script = fail
    stream = await stack.openai().chat.completions.create(model="auto", messages=_ASK, stream=True)
    texts = []

    async def read() -> None:
        async for chunk in stream:
            texts.append(chunk.choices[0].delta.content)  # noqa: PERF401 - what came before the error counts

    with pytest.raises(openai.APIError) as caught:
        await read()

    assert texts == ["Hello"]
    assert caught.value.code == "engine_overloaded"


async def test_silence_in_a_stream_is_bridged_by_comments(run) -> None:
    """A stream that waits is pinged, also before its first window."""
    pinged = asyncio.Event()

    async def slow(orchestrator, request) -> None:
        await pinged.wait()
        await scripted.hello(orchestrator, request)

    async with run(ping_seconds=0.1) as stack:
        stack.orchestrator.script = slow
        body = ""
        async with stack.http() as http, http.stream("POST", "/v1/chat/completions", json={"messages": _ASK, "stream": True}) as answer:
            async for text in answer.aiter_text():
                body += text
                pinged.set()

    assert body.startswith(": ping\n\n")
    assert body.endswith("data: [DONE]\n\n")


async def test_a_trace_is_continued_and_every_answer_names_its_request(stack) -> None:
    """`traceparent` decides the trace id; `x-request-id` and the limits are on every answer."""
    trace = "0af7651916cd43dd8448eb211c80319c"
    async with stack.http() as http:
        headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
        response = await http.post("/v1/chat/completions", json={"messages": _ASK}, headers=headers)
        missing = await http.get("/v1/nothing")

    assert response.json()["strata"]["trace_id"] == trace
    assert stack.orchestrator.seen[0].trace_id == trace
    assert response.headers["x-request-id"].startswith("req_")
    assert response.headers["x-strata-route"] == "chat"
    assert response.headers["x-strata-adapter"] == "patient-answer@v1"
    assert int(response.headers["openai-processing-ms"]) >= 0
    assert response.headers["x-ratelimit-limit-requests"] == "600"
    assert response.headers["x-ratelimit-remaining-requests"] == "119"
    assert missing.status_code == 404
    assert missing.headers["x-request-id"].startswith("req_")
