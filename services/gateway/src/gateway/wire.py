"""From what a client sent to what the stream carries."""

import json
from datetime import UTC, datetime

from gateway.catalogue import Target
from gateway.chat_body import ChatBody, Message
from strata.gateway.v1.gateway_events_pb2 import Caller, ChatMessage, RequestAdmitted, Sampling, ToolCall, ToolSpec


def admitted(body: ChatBody, *, request_id: str, trace_id: str, caller: Caller, target: Target, request_class: str) -> RequestAdmitted:
    """Return the request as the orchestrator reads it."""
    request = RequestAdmitted(
        request_id=request_id,
        trace_id=trace_id,
        caller=caller,
        model=body.model,
        workflow=target.workflow.name,
        adapter=target.adapter,
        tier=target.tier,
        messages=[_message(message) for message in body.messages],
        tool_choice_json=_tool_choice(body),
        response_schema_json=_schema(body),
        sampling=_sampling(body),
        stream=body.stream,
        session_id=body.strata.session_id,
        filters=body.strata.filters,
        at_least=body.strata.at_least,
        positions=body.strata.positions,
        accept_stale=body.strata.accept_stale,
        request_class=request_class,
    )
    if body.tools:
        request.tools.extend(
            ToolSpec(name=t.function.name, description=t.function.description, parameters_json=json.dumps(t.function.parameters))
            for t in body.tools
        )
    if body.strata.as_of is not None:
        request.as_of.FromDatetime(body.strata.as_of)
    if body.strata.context:
        request.context.update(body.strata.context)
    request.received_at.FromDatetime(datetime.now(UTC))
    return request


def _message(message: Message) -> ChatMessage:
    calls = [ToolCall(id=c.id, name=c.function.name, arguments_json=c.function.arguments) for c in message.tool_calls or ()]
    return ChatMessage(
        role=message.role, content=message.text, name=message.name or "", tool_call_id=message.tool_call_id or "", tool_calls=calls
    )


def _sampling(body: ChatBody) -> Sampling:
    return Sampling(max_tokens=body.token_limit, temperature=body.temperature, top_p=body.top_p, seed=body.seed, stop=body.stop or ())


def _tool_choice(body: ChatBody) -> str:
    choice = body.tool_choice
    if choice is None or choice == "auto":
        return ""
    return json.dumps(choice if isinstance(choice, str) else choice.model_dump())


def _schema(body: ChatBody) -> str:
    form = body.response_format
    if form is None or form.type == "text":
        return ""
    return json.dumps(form.json_schema.schema_) if form.json_schema and form.type == "json_schema" else "{}"


def estimated_tokens(body_bytes: int, body: ChatBody) -> int:
    """Return how many tokens a request may use: four bytes to a token, and what it may generate."""
    return body_bytes // 4 + (body.token_limit or 256)
