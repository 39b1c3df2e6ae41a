"""A small real HTTP server that speaks server-sent events as badly as a test needs."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

Script = Callable[["Upstream", asyncio.StreamWriter, dict[str, Any]], Coroutine[Any, Any, None]]


@dataclass
class Upstream:
    """What the server saw; `script` answers each generation."""

    script: Script
    port: int = 0
    healthy: bool = True
    models: list[str] = field(default_factory=lambda: ["base"])
    bodies: list[dict[str, Any]] = field(default_factory=list)
    authorizations: list[str] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    left_early: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        """URL of the server."""
        return f"http://127.0.0.1:{self.port}"


def head(status: int = 200, content_type: str = "text/event-stream") -> bytes:
    """Return the head of an answer that ends with its connection."""
    return f"HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\nConnection: close\r\n\r\n".encode()


def event(text: str = "", *, finish: str | None = None, usage: bool = False) -> bytes:
    """Return one chunk of a streamed completion."""
    chunk: dict[str, Any] = {"choices": [{"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish}]}
    if usage:
        chunk = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def says(*texts: str, pause: float = 0.0, after: asyncio.Event | None = None) -> Script:
    """Return a script that streams these pieces, after something has happened where that is said, and ends well."""

    async def script(_: Upstream, writer: asyncio.StreamWriter, __: dict[str, Any]) -> None:
        if after is not None:
            await after.wait()
        writer.write(head())
        for text in texts:
            writer.write(event(text))
            await writer.drain()
            await asyncio.sleep(pause)
        writer.write(event(finish="stop") + event(usage=True) + b"data: [DONE]\n\n")

    return script


def fails(status: int, message: str) -> Script:
    """Return a script that answers with an error."""

    async def script(_: Upstream, writer: asyncio.StreamWriter, __: dict[str, Any]) -> None:
        writer.write(head(status, "application/json") + json.dumps({"error": {"message": message, "code": status}}).encode())

    return script


@asynccontextmanager
async def upstream(script: Script) -> AsyncIterator[Upstream]:
    """Run the server on a free port."""
    seen = Upstream(script)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            request = (await reader.readuntil(b"\r\n\r\n")).decode()
            headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in request.split("\r\n")[1:])}
            path = request.split(" ")[1]
            if path == "/health":
                writer.write(head(200 if seen.healthy else 503))
            elif path == "/v1/models":
                writer.write(head(200, "application/json") + json.dumps({"data": [{"id": name} for name in seen.models]}).encode())
            else:
                body = json.loads(await reader.readexactly(int(headers["content-length"])))
                await _generate(seen, reader, writer, body, headers.get("authorization", ""))
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    seen.port = server.sockets[0].getsockname()[1]
    async with server:
        yield seen


async def _generate(
    seen: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: dict[str, Any], authorization: str
) -> None:
    seen.bodies.append(body)
    seen.authorizations.append(authorization)
    seen.running += 1
    seen.most_running = max(seen.most_running, seen.running)
    script = asyncio.create_task(seen.script(seen, writer, body))
    gone = asyncio.create_task(reader.read())
    await asyncio.wait((script, gone), return_when=asyncio.FIRST_COMPLETED)
    if not script.done():
        seen.left_early.set()
    script.cancel()
    gone.cancel()
    seen.running -= 1
