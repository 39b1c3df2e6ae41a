"""Between the gateway's own types and protobuf."""

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from google.protobuf import json_format

from chassis.errors import InvalidArgumentError
from inference.generation import Result, check_schema
from inference.prompts import Prompt, Prompts
from inference.providers.base import Call, Job, Message, Tool, ToolChoice
from strata.gateway.v1.gateway_events_pb2 import ChatMessage, ToolCall
from strata.inference.v1.inference_service_pb2 import Generated, GenerateRequest, Usage

_CANARY = re.compile(r"[0-9A-Za-z]{8,64}")
_ROLES = ("system", "developer", "user", "assistant", "tool")


def to_job(request: GenerateRequest, prompts: Prompts, *, default_max_tokens: int, max_characters: int) -> tuple[Job, Prompt | None]:
    """Return what to generate and the prompt that it follows; raise InvalidArgumentError for what is malformed."""
    prompt = prompts.get(request.prompt) if request.prompt else None
    messages: list[Message] = []
    if prompt is not None:
        messages += prompt.render(_variables(request), max_characters=max_characters)
    if prompt is None or prompt.passthrough:
        messages += [_to_message(message) for message in request.messages]
    if not messages:
        raise InvalidArgumentError("there is nothing to answer: give messages or a prompt")
    if request.canary:
        messages = _with_canary(messages, request.canary)
    sampling = request.sampling
    schema = check_schema(_json(request.schema_json, "schema_json")) if request.schema_json else (prompt.schema if prompt else None)
    if schema is not None and request.prefix:
        raise InvalidArgumentError("a text under a schema cannot be continued")
    tools = tuple(_to_tool(tool) for tool in request.tools)
    job = Job(
        messages=tuple(messages),
        max_tokens=sampling.max_tokens or (prompt.max_tokens if prompt else default_max_tokens),
        temperature=sampling.temperature if sampling.HasField("temperature") else (prompt.temperature if prompt else 0.0),
        top_p=sampling.top_p if sampling.HasField("top_p") else None,
        seed=sampling.seed if sampling.HasField("seed") else None,
        stop=tuple(sampling.stop),
        schema=schema,
        tools=tools,
        choice=_to_choice(request.tool_choice_json, tools),
        prefix=request.prefix,
    )
    return job, prompt


def _with_canary(messages: list[Message], canary: str) -> list[Message]:
    """Return the messages with a canary at the end of the first system turn, after all that an engine's cache may share."""
    if not _CANARY.fullmatch(canary):
        raise InvalidArgumentError("a canary has 8 to 64 letters and digits")
    line = f"Internal reference {canary}."
    place = next((number for number, message in enumerate(messages) if message.role == "system"), None)
    if place is None:
        return [Message("system", line), *messages]
    turn = messages[place]
    return [*messages[:place], replace(turn, content=f"{turn.content}\n{line}"), *messages[place + 1 :]]


def _variables(request: GenerateRequest) -> dict[str, Any]:
    variables = _whole_numbers(json_format.MessageToDict(request.variables))
    return variables if isinstance(variables, dict) else {}


def _whole_numbers(value: Any) -> Any:
    """A protobuf Struct knows no whole numbers; templates would print 1.0."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_whole_numbers(item) for item in value]
    if isinstance(value, dict):
        return {key: _whole_numbers(item) for key, item in value.items()}
    return value


def _json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidArgumentError(f"{what} is not JSON: {error}") from error


def _to_message(message: ChatMessage) -> Message:
    if message.role not in _ROLES:
        raise InvalidArgumentError(f"unknown role {message.role!r}; known: {list(_ROLES)}")
    for call in message.tool_calls:
        _json(call.arguments_json or "{}", f"the arguments of tool call {call.id!r}")
    calls = tuple(Call(call.name, call.arguments_json, call.id) for call in message.tool_calls)
    return Message(message.role, message.content, message.tool_call_id, calls)


def _to_tool(tool: Any) -> Tool:
    parameters = _json(tool.parameters_json, f"the parameters of tool {tool.name!r}") if tool.parameters_json else {"type": "object"}
    return Tool(tool.name, tool.description, check_schema(parameters))


def _to_choice(text: str, tools: Iterable[Tool]) -> ToolChoice:
    value = _json(text, "tool_choice_json") if text else "auto"
    if value in ("auto", "none", "required"):
        return ToolChoice(value)
    name = value.get("function", {}).get("name") if isinstance(value, dict) else None
    known = sorted(tool.name for tool in tools)
    if name not in known:
        raise InvalidArgumentError(f"tool_choice names {name!r}; known tools: {known}")
    return ToolChoice("named", name)


def to_generated(result: Result, prompt: Prompt | None, *, prefix: str) -> Generated:
    """Return the summary of a finished generation; its text begins with the prefix that it continued."""
    outcome = result.outcome
    return Generated(
        text=prefix + result.text,
        finish_reason=outcome.finish_reason,
        usage=Usage(prompt_tokens=outcome.prompt_tokens, completion_tokens=outcome.completion_tokens, cached_tokens=outcome.cached_tokens),
        tool_calls=[ToolCall(id=call.id, name=call.name, arguments_json=call.arguments_json) for call in outcome.calls],
        deployment=result.deployment,
        model=result.model,
        adapter=result.adapter,
        prompt=prompt.name if prompt else "",
        prompt_sha256=prompt.sha256 if prompt else "",
        first_token_ms=result.first_token_ms,
        total_ms=result.total_ms,
        cost_usd=result.cost_usd,
    )
