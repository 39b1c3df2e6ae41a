"""Streams chat completions from an OpenAI-compatible URL, with a limit on every wait."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from chassis import telemetry
from chassis.errors import DeadlineError, InvalidArgumentError, ResourceExhaustedError, ServiceError, UnavailableError
from inference.providers.base import ModelMissingError

_CONTEXT_WORDS = ("context length", "context_length", "maximum model length", "max_model_len", "too many tokens")
_OVERLOADED = (429, 503)


@dataclass(frozen=True)
class Timeouts:
    """Longest waits in seconds."""

    connect: float = 2.0
    first_token: float = 20.0
    next_token: float = 10.0
    total: float = 120.0


class ChatClient:
    """Kept-alive connections to one URL."""

    def __init__(self, url: str, api_key: str, timeouts: Timeouts, *, connections: int) -> None:
        """Connect to nothing yet."""
        self._url, self._timeouts = url, timeouts
        self._client = httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(timeouts.total, connect=timeouts.connect),
            limits=httpx.Limits(max_connections=connections + 4, max_keepalive_connections=connections + 4, keepalive_expiry=4.0),
            trust_env=False,
        )

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.aclose()

    async def list_models(self) -> frozenset[str]:
        """Return the ids of /v1/models; raise ServiceError when it does not answer."""
        async with self._reachable():
            response = await self._client.get("/v1/models", timeout=self._timeouts.connect)
            if response.status_code != httpx.codes.OK:
                raise to_error(response.status_code, response.content)
            return frozenset(str(model["id"]) for model in response.json()["data"])

    async def check(self, path: str) -> None:
        """Raise ServiceError unless GET `path` answers 200."""
        async with self._reachable():
            response = await self._client.get(path, timeout=self._timeouts.connect)
        if response.status_code != httpx.codes.OK:
            raise UnavailableError(f"{self._url}{path} answers {response.status_code}")

    async def stream(self, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the chunks of a streamed chat completion; raise ServiceError for whatever goes wrong.

        Leaving early closes the connection, at which the engine stops generating.
        """
        headers: dict[str, str] = {}
        telemetry.inject(headers)
        content = json.dumps({**body, "stream": True, "stream_options": {"include_usage": True}}).encode()
        headers["Content-Type"] = "application/json"
        request = self._client.build_request("POST", "/v1/chat/completions", content=content, headers=headers)
        loop = asyncio.get_running_loop()
        end, end_of_first = loop.time() + self._timeouts.total, loop.time() + self._timeouts.first_token
        async with self._reachable():
            async with _limit(self._timeouts.first_token, _no_first_token(self._timeouts)):
                response = await self._client.send(request, stream=True)
            try:
                if response.status_code != httpx.codes.OK:
                    async with _limit(self._timeouts.next_token, _no_next_token(self._timeouts)):
                        raise to_error(response.status_code, await response.aread())
                events = _events(response)
                wait, late = end_of_first - loop.time(), _no_first_token(self._timeouts)
                while True:
                    left = end - loop.time()
                    async with _limit(min(wait, left), late if wait <= left else _too_long(self._timeouts)):
                        chunk = await anext(events, None)
                    if chunk is None:
                        return
                    if "error" in chunk:
                        raise _failed(chunk)
                    yield chunk
                    if _has_content(chunk):
                        wait, late = self._timeouts.next_token, _no_next_token(self._timeouts)
            finally:
                await response.aclose()

    @asynccontextmanager
    async def _reachable(self) -> AsyncIterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            raise UnavailableError(f"{self._url} does not answer: {type(error).__name__} {error}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise UnavailableError(f"{self._url} does not speak OpenAI's protocol: {error!r}") from error


@asynccontextmanager
async def _limit(seconds: float, error: ServiceError) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(max(seconds, 0.001)):
            yield
    except TimeoutError:
        raise error from None


def _no_first_token(timeouts: Timeouts) -> ServiceError:
    return UnavailableError(f"no first token within {timeouts.first_token:g} s", code="engine_overloaded")


def _no_next_token(timeouts: Timeouts) -> ServiceError:
    return UnavailableError(f"no further token within {timeouts.next_token:g} s")


def _too_long(timeouts: Timeouts) -> ServiceError:
    return DeadlineError(f"the generation took longer than {timeouts.total:g} s")


def _has_content(chunk: dict[str, Any]) -> bool:
    return any(choice.get("delta", {}).get("content") or choice.get("delta", {}).get("tool_calls") for choice in chunk.get("choices", ()))


async def _events(response: httpx.Response) -> AsyncGenerator[dict[str, Any], None]:
    """Yield the data of server-sent events; one that is cut off or ends without [DONE] raises ValueError."""
    buffer = b""
    async for piece in response.aiter_bytes():
        buffer += piece
        *lines, buffer = buffer.split(b"\n")
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                return
            yield json.loads(data)
    raise ValueError("the stream ended without [DONE]")


def _message(body: Any) -> str:
    error = body.get("error", body) if isinstance(body, dict) else body
    text = error.get("message", error) if isinstance(error, dict) else error
    return " ".join(str(text).split())[:500]


def _failed(chunk: dict[str, Any]) -> ServiceError:
    """Return what an error means that comes inside of a stream which began well."""
    code = chunk["error"].get("code") if isinstance(chunk["error"], dict) else None
    return to_error(code if isinstance(code, int) else httpx.codes.INTERNAL_SERVER_ERROR, json.dumps(chunk).encode())


def to_error(status: int, content: bytes) -> ServiceError:
    """Return what an answer of the engine other than 200 means."""
    try:
        body = json.loads(content)
    except ValueError:
        body = content.decode(errors="replace")
    message = _message(body)
    if status in _OVERLOADED:
        return ResourceExhaustedError(f"the engine is overloaded: {message}", code="engine_overloaded")
    if status == httpx.codes.NOT_FOUND:
        return ModelMissingError(f"the engine does not serve this model: {message}")
    if status in (httpx.codes.BAD_REQUEST, httpx.codes.REQUEST_ENTITY_TOO_LARGE, httpx.codes.UNPROCESSABLE_ENTITY):
        if any(word in message.lower() for word in _CONTEXT_WORDS):
            return InvalidArgumentError(message, code="context_length_exceeded")
        return InvalidArgumentError(f"the engine refused the request: {message}")
    # A wrong key of ours, or a fault of theirs: another engine may do better.
    return UnavailableError(f"the engine answered {status}: {message}")
