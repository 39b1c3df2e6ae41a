"""OpenAI's objects from verified windows."""

import json
import time
from typing import Any

from gateway.assembly import Window
from gateway.refusals import RefusedError
from strata.gateway.v1.gateway_events_pb2 import ToolCall

PING = b": ping\n\n"
DONE = b"data: [DONE]\n\n"


def refuse_if_blocked(window: Window) -> None:
    """Raise RefusedError for an answer that was blocked before a model ran."""
    completion = window.completion
    if window.status == "blocked" and completion is not None and not completion.get("model"):
        raise RefusedError("content_policy_violation", reason=completion.get("code") or "policy")


def finish_reason(window: Window, *, called_tools: bool) -> str:
    """Return why the answer ends, in OpenAI's words."""
    if window.status == "blocked":
        return "content_filter"
    return str((window.completion or {}).get("finish_reason") or ("tool_calls" if called_tools else "stop"))


def usage(completion: dict[str, Any]) -> dict[str, Any]:
    """Return OpenAI's usage object."""
    prompt, generated = completion.get("prompt_tokens", 0), completion.get("completion_tokens", 0)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": prompt + generated,
        "cost": {"usd": completion.get("cost_usd", 0.0)},
    }


def strata(window: Window, *, request_id: str, trace_id: str, gateway_ms: float | None) -> dict[str, Any]:
    """Return the object that says how the answer was made."""
    completion = window.completion or {}
    latency = dict(completion.get("latency_ms") or {})
    if gateway_ms is not None:
        latency["gateway_total"] = round(gateway_ms, 3)
    return {
        "trace_id": trace_id,
        "request_id": request_id,
        "request_class": completion.get("request_class", ""),
        "intent": completion.get("intent", ""),
        "tier": completion.get("tier", ""),
        "model": completion.get("model", ""),
        "adapter": completion.get("adapter", ""),
        "confidence": completion.get("confidence", 0.0),
        "citations": completion.get("citations", []),
        "verdict": completion.get("verdict", ""),
        "status": window.status,
        "code": completion.get("code", ""),
        "usage_by_step": {
            step.get("step_id", ""): {
                "latency_ms": step.get("latency_ms", 0.0),
                "prompt_tokens": step.get("prompt_tokens", 0),
                "completion_tokens": step.get("completion_tokens", 0),
            }
            for step in completion.get("steps", ())
        },
        "cost": {"usd": completion.get("cost_usd", 0.0)},
        "latency_ms": latency,
        "workflow": completion.get("workflow", ""),
        "origin": completion.get("origin", ""),
        "tools": completion.get("tools", []),
        "knowledge": {
            "index_versions": _whole(completion.get("index_versions")),
            "watermarks": _whole(completion.get("watermarks")),
            "stale_seconds": completion.get("stale_seconds", {}),
            "retrieval": completion.get("retrieval", {}),
        },
    }


def _whole(numbers: dict[str, str] | None) -> dict[str, int]:
    """Return numbers of 64 bits, which protobuf's JSON writes as texts."""
    return {name: int(number) for name, number in (numbers or {}).items()}


def tool_calls(calls: tuple[ToolCall, ...]) -> list[dict[str, Any]]:
    """Return calls as OpenAI writes them."""
    return [{"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments_json}} for c in calls]


def whole(windows: list[Window], *, request_id: str, model: str, about: dict[str, Any]) -> dict[str, Any]:
    """Return a chat completion; the last window is the final one."""
    last = windows[-1]
    calls = tuple(call for window in windows for call in window.tool_calls)
    text = "".join(window.text for window in windows)
    message: dict[str, Any] = {"role": "assistant", "content": None if calls and not text else text, "refusal": None}
    if calls:
        message["tool_calls"] = tool_calls(calls)
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason(last, called_tools=bool(calls))}
    return {
        "id": f"chatcmpl-{request_id}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [choice],
        "usage": usage(last.completion or {}),
        "strata": about,
    }


class Chunks:
    """Writes the events of one stream; what is the same in all of them is written once."""

    __slots__ = ("_calls", "_head", "_role")

    def __init__(self, request_id: str, model: str) -> None:
        """Bind what does not change."""
        head = {"id": f"chatcmpl-{request_id}", "object": "chat.completion.chunk", "created": int(time.time()), "model": model}
        self._head = "data: " + json.dumps(head)[:-1]
        self._role, self._calls = '"role":"assistant",', 0

    def window(self, window: Window) -> bytes:
        """Return the events of one window."""
        found = ""
        if window.text or self._role:
            found = self._delta(f'{{{self._role}"content":{json.dumps(window.text)}}}')
            self._role = ""
        for call in tool_calls(window.tool_calls):
            found += self._delta(json.dumps({"tool_calls": [{"index": self._calls, **call}]}))
            self._calls += 1
        return found.encode()

    def _delta(self, delta: str) -> str:
        return f'{self._head},"choices":[{{"index":0,"delta":{delta},"finish_reason":null}}]}}\n\n'

    def end(self, last: Window, about: dict[str, Any], *, include_usage: bool) -> bytes:
        """Return the closing events: finish reason, usage where asked for, and `strata` on the last of them."""
        reason = json.dumps(finish_reason(last, called_tools=self._calls > 0))
        described = json.dumps(about)
        finish = f'{self._head},"choices":[{{"index":0,"delta":{{}},"finish_reason":{reason}}}]'
        if not include_usage:
            return f'{finish},"strata":{described}}}\n\n'.encode() + DONE
        tail = f'{self._head},"choices":[],"usage":{json.dumps(usage(last.completion or {}))},"strata":{described}}}\n\n'
        return f"{finish}}}\n\n{tail}".encode() + DONE


def error_event(envelope: bytes) -> bytes:
    """Return an error in the middle of a stream, and its end."""
    return b"data: " + envelope + b"\n\n" + DONE
