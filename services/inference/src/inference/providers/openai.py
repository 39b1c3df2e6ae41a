"""Any OpenAI-compatible URL: tools and response formats are passed on unchanged."""

from collections.abc import AsyncGenerator
from typing import Any

from inference.providers.base import Call, Job, Message, Outcome, ToolChoice
from inference.providers.streaming import ChatClient


class OpenAIProvider:
    """Trusts the engine to decide on tools and to keep to a schema."""

    def __init__(self, client: ChatClient) -> None:
        self._client = client

    async def generate(self, model: str, job: Job, outcome: Outcome) -> AsyncGenerator[str, None]:
        """Yield the text of the first choice; tool calls end up in `outcome`."""
        body = {**sampling(model, job), "messages": [_message(message) for message in job.messages]}
        if job.prefix:
            # No field of the protocol continues a text; engines that can, do so from a last turn of the assistant.
            body["messages"].append({"role": "assistant", "content": job.prefix})
        if job.tools:
            body["tools"] = [
                {"type": "function", "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters}}
                for tool in job.tools
            ]
            body["tool_choice"] = _choice(job.choice)
        if (response_format := to_response_format(job.schema)) is not None:
            body["response_format"] = response_format
        pieces: dict[int, dict[str, str]] = {}
        skip = job.prefix
        async for chunk in self._client.stream(body):
            text = read_chunk(chunk, outcome, pieces)
            if skip and text:
                # Some engines repeat the text that they continue.
                text, skip = (text[len(skip) :], "") if text.startswith(skip) else (text, "")
            if text:
                yield text
        outcome.calls = [Call(piece["name"], piece["arguments"] or "{}", piece["id"]) for _, piece in sorted(pieces.items())]

    async def list_models(self) -> frozenset[str]:
        """Return the names that the URL offers."""
        return await self._client.list_models()

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.close()


def sampling(model: str, job: Job) -> dict[str, Any]:
    """Return the fields of a request that say how to sample."""
    body: dict[str, Any] = {"model": model, "max_tokens": job.max_tokens, "temperature": job.temperature}
    optional = {"top_p": job.top_p, "seed": job.seed, "stop": list(job.stop) or None}
    return body | {name: value for name, value in optional.items() if value is not None}


def to_response_format(schema: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return OpenAI's response_format for a schema: None for free text, any object for an empty one."""
    if schema is None:
        return None
    if not schema:
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


def read_chunk(chunk: dict[str, Any], outcome: Outcome, pieces: dict[int, dict[str, str]] | None = None) -> str:
    """Return the text of a chunk; note finish reason, usage and pieces of tool calls."""
    if usage := chunk.get("usage"):
        outcome.prompt_tokens = usage.get("prompt_tokens") or 0
        outcome.completion_tokens = usage.get("completion_tokens") or 0
        outcome.cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    if not chunk.get("choices"):
        return ""
    choice = chunk["choices"][0]
    outcome.finish_reason = choice.get("finish_reason") or outcome.finish_reason
    delta = choice.get("delta") or {}
    for call in delta.get("tool_calls") or ():
        if pieces is None:
            break
        piece = pieces.setdefault(call["index"], {"id": "", "name": "", "arguments": ""})
        function = call.get("function") or {}
        piece["id"] += call.get("id") or ""
        piece["name"] += function.get("name") or ""
        piece["arguments"] += function.get("arguments") or ""
    return delta.get("content") or ""


def _message(message: Message) -> dict[str, Any]:
    result: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.calls:
        result["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments_json}} for call in message.calls
        ]
        result["content"] = message.content or None
    if message.tool_call_id:
        result["tool_call_id"] = message.tool_call_id
    return result


def _choice(choice: ToolChoice) -> Any:
    return {"type": "function", "function": {"name": choice.name}} if choice.mode == "named" else choice.mode
