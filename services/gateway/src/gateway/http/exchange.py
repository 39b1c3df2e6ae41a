"""One HTTP exchange over ASGI: what came in, and the few ways to answer."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, MutableMapping
from typing import Any
from urllib.parse import parse_qs

from contracts.errors import known
from gateway import refusals
from gateway.refusals import RefusedError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

JSON = b"application/json"
_NAME = re.compile(r"[\w.@/:-]{1,128}", re.ASCII)
_MOST_FIELDS, _LONGEST_FIELD = 12, 2000
EVENTS = b"text/event-stream; charset=utf-8"


class Exchange:
    """A request and the answer to it; every answer carries `x-request-id`."""

    __slots__ = ("_receive", "_send", "extra", "headers", "method", "path", "query", "request_id", "started", "streaming")

    def __init__(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        """Bind the three parts of ASGI."""
        self._receive, self._send = receive, send
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query: bytes = scope.get("query_string", b"")
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.request_id = request_id
        self.started = time.perf_counter()
        self.extra: Headers = []
        self.streaming = False

    def header(self, name: bytes) -> str:
        """Return a header's value, or nothing."""
        return self.headers.get(name, b"").decode("latin-1")

    def query_fields(self, known_names: Collection[str]) -> dict[str, str]:
        """Return the fields of the query, of each the last; raise RefusedError for a malformed query or another name."""
        try:
            found = parse_qs(self.query.decode("ascii"), strict_parsing=bool(self.query), max_num_fields=_MOST_FIELDS, errors="strict")
        except ValueError as error:
            raise RefusedError("invalid_request", "The query is malformed.") from error
        if unknown := sorted(set(found) - set(known_names)):
            raise RefusedError("invalid_request", f"Known: {', '.join(sorted(known_names))}.", param=unknown[0][:64])
        return {name: values[-1][:_LONGEST_FIELD] for name, values in found.items()}

    def add(self, name: bytes, value: str) -> None:
        """Add a header to the answer; an empty value, or one that is no plain name, is left out."""
        if _NAME.fullmatch(value):
            self.extra.append((name, value.encode()))

    async def body(self, limit: int, seconds: float) -> bytes:
        """Return the whole body; raise RefusedError as soon as it is known to be too large, or when it does not come."""
        try:
            async with asyncio.timeout(seconds):
                return await self._body(limit)
        except TimeoutError as error:
            raise RefusedError("invalid_request", "The body did not arrive in time.") from error

    async def _body(self, limit: int) -> bytes:
        if int(self.headers.get(b"content-length", b"0") or 0) > limit:
            raise _too_large(limit)
        parts, size = [], 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise RefusedError("invalid_request", "The body is incomplete.")
            part = message.get("body", b"")
            size += len(part)
            if size > limit:
                raise _too_large(limit)
            parts.append(part)
            if not message.get("more_body", False):
                return parts[0] if len(parts) == 1 else b"".join(parts)

    async def chunks(self, seconds: float) -> AsyncIterator[bytes]:
        """Yield the body as it arrives; raise RefusedError when it stops for so long, or ends too early."""
        more = True
        while more:
            try:
                async with asyncio.timeout(seconds):
                    message = await self._receive()
            except TimeoutError as error:
                raise RefusedError("invalid_request", "The body did not arrive in time.") from error
            if message["type"] == "http.disconnect":
                raise RefusedError("invalid_request", "The body is incomplete.")
            yield message.get("body", b"")
            more = message.get("more_body", False)

    async def gone(self) -> None:
        """Return when the client has left or has its answer."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def _head(self, status: int, content_type: bytes) -> dict[str, Any]:
        spent = b"%d" % int((time.perf_counter() - self.started) * 1000)
        headers = [
            (b"content-type", content_type),
            (b"x-request-id", self.request_id.encode()),
            (b"openai-processing-ms", spent),
            *self.extra,
        ]
        return {"type": "http.response.start", "status": status, "headers": headers}

    async def respond(self, status: int, body: bytes, content_type: bytes = JSON) -> None:
        """Answer in one piece."""
        head = self._head(status, content_type)
        head["headers"].append((b"content-length", b"%d" % len(body)))
        await self._send(head)
        await self._send({"type": "http.response.body", "body": body})

    async def respond_json(self, value: dict[str, Any], *, status: int = 200) -> None:
        """Answer with an object."""
        await self.respond(status, json.dumps(value, separators=(",", ":")).encode())

    async def refuse(self, error: RefusedError) -> None:
        """Answer with OpenAI's error envelope."""
        self.extra = [*self.extra, *refusals.headers(error)]
        await self.respond(known(error.code).http_status, refusals.envelope(error))

    async def begin_events(self) -> None:
        """Begin a stream of server-sent events."""
        self.streaming = True
        self.extra.append((b"cache-control", b"no-cache"))
        await self._send(self._head(200, EVENTS))

    async def events(self, data: bytes, *, last: bool = False) -> None:
        """Send events as they are."""
        await self._send({"type": "http.response.body", "body": data, "more_body": not last})


def _too_large(limit: int) -> RefusedError:
    return RefusedError("request_too_large", f"At most {limit} bytes are allowed.")
