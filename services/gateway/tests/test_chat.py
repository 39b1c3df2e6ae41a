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
    steps = [(record.step, record.outcome) for record in await scripted.records(stack.admin)]
    assert steps == [("request", "succeeded"), ("response", "succeeded")]
