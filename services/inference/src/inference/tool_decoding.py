"""Tool calls from a model that was never trained to make them: their schemas become the grammar of what it may write."""

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from chassis.errors import InternalError
from chassis.json_schemas import Schema, TooMuchWorkError, ValidationError
from inference.providers.base import Call, Job, Message, Tool

_ANSWER_MAX_CHARACTERS = 1200
_PARTS = frozenset({"items", "prefixItems", "anyOf", "oneOf"})
_OPEN = frozenset({"additionalProperties", "patternProperties", "unevaluatedProperties", "allOf", "$ref", "anyOf", "oneOf"})


@dataclass(frozen=True)
class Plan:
    """What to send: messages, the schema of the text, and whether the text is a decision that must be read."""

    messages: tuple[Message, ...]
    schema: dict[str, Any] | None
    decides: bool


def plan(job: Job) -> Plan:
    """Return how to make `job` with constrained decoding; without tools, or after a tool has answered, it is plain text."""
    answered = bool(job.messages) and job.messages[-1].role == "tool"
    if not job.tools or job.choice.mode == "none" or (job.choice.mode == "auto" and answered) or job.prefix:
        return Plan(job.messages, job.schema, decides=False)
    offered = [tool for tool in job.tools if job.choice.mode != "named" or tool.name == job.choice.name]
    options = [_call_schema(tool) for tool in offered]
    if job.choice.mode == "auto":
        options.append(_answer_schema(job.schema))
    schema = options[0] if len(options) == 1 else {"anyOf": options}
    return Plan(_instruct(job.messages, offered, may_answer=job.choice.mode == "auto"), schema, decides=True)


def _call_schema(tool: Tool) -> dict[str, Any]:
    parameters = closed(tool.parameters or {"type": "object", "properties": {}})
    return {
        "type": "object",
        "properties": {"tool": {"const": tool.name}, "arguments": parameters},
        "required": ["tool", "arguments"],
        "additionalProperties": False,
    }


def closed(schema: Any) -> Any:
    """Return the schema without fields that it does not name: a schema that leaves them open gets made-up arguments."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    result = {name: closed(part) if name in _PARTS else part for name, part in schema.items()}
    if isinstance(fields := result.get("properties"), dict):
        result["properties"] = {name: closed(part) for name, part in fields.items()}
        # Parts that are put together by `allOf` would each forbid the fields of the others.
        if not _OPEN & result.keys():
            result["additionalProperties"] = False
    return result


def _answer_schema(schema: dict[str, Any] | None) -> dict[str, Any]:
    answer = {"type": "string", "minLength": 1, "maxLength": _ANSWER_MAX_CHARACTERS} if schema is None else schema or {"type": "object"}
    return {"type": "object", "properties": {"answer": answer}, "required": ["answer"], "additionalProperties": False}


def _instruct(messages: tuple[Message, ...], tools: Sequence[Tool], *, may_answer: bool) -> tuple[Message, ...]:
    listed = "\n".join(
        json.dumps({"tool": tool.name, "description": tool.description, "parameters": tool.parameters}, ensure_ascii=False)
        for tool in tools
    )
    text = f'You can call these tools:\n{listed}\nTo call one, reply with JSON: {{"tool": its name, "arguments": its arguments}}.'
    if may_answer:
        text += ' When no tool can help, reply with JSON: {"answer": your answer}.'
    if messages and messages[0].role in ("system", "developer"):
        return (replace(messages[0], content=f"{messages[0].content}\n\n{text}"), *messages[1:])
    return (Message("system", text), *messages)


def to_text(message: Message) -> str:
    """Return a turn as text, calls in the form in which the model writes them."""
    calls = [json.dumps({"tool": call.name, "arguments": json.loads(call.arguments_json or "{}")}) for call in message.calls]
    return "\n".join([*([message.content] if message.content else []), *calls])


def read(text: str, tools: Sequence[Tool], *, finish_reason: str) -> tuple[str, list[Call]]:
    """Return the answer or the call that the model decided on; raise InternalError for one that breaks its schema."""
    try:
        decision = json.loads(text)
    except ValueError as error:
        why = "it was cut off by max_tokens" if finish_reason == "length" else str(error)
        raise InternalError(f"the model's decision on tools cannot be read: {why}") from error
    if "answer" in decision:
        answer = decision["answer"]
        return answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False), []
    tool = next((tool for tool in tools if tool.name == decision.get("tool")), None)
    if tool is None:
        raise InternalError(f"the model called the unknown tool {decision.get('tool')!r}")
    arguments = decision.get("arguments")
    try:
        Schema(tool.parameters).validate(arguments)
    except (ValidationError, TooMuchWorkError) as error:
        raise InternalError(f"the arguments of tool {tool.name!r} do not match its schema: {str(error).splitlines()[0][:300]}") from error
    return "", [Call(tool.name, json.dumps(arguments, ensure_ascii=False), f"call_{uuid.uuid4().hex[:24]}")]
