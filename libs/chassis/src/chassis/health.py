"""Liveness, readiness, version and metrics of a process over plain HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from chassis.tasks import in_time

_REASONS = {200: "OK", 404: "Not Found", 503: "Service Unavailable"}


@dataclass
class Health:
    """Whether the process can do its work; each check says so by name."""

    service: str
    version: str = "0.1.0"
    started: bool = False
    draining: bool = False
    checks: dict[str, Callable[[], bool]] = field(default_factory=dict)

    def report(self) -> tuple[bool, dict[str, bool]]:
        """Return whether the process is ready, and each check's answer."""
        results = {name: bool(check()) for name, check in self.checks.items()}
        return self.started and not self.draining and all(results.values()), results

    def respond(self, path: str) -> tuple[int, str, bytes]:
        """Return status, content type and body for one of the four paths."""
        if path == "/livez":
            return 200, "text/plain", b"ok\n"
        if path == "/readyz":
            ready, checks = self.report()
            body = {"ready": ready, "draining": self.draining, "checks": checks}
            return 200 if ready else 503, "application/json", json.dumps(body).encode()
        if path == "/metrics":
            return 200, CONTENT_TYPE_LATEST, generate_latest()
        if path == "/version":
            return 200, "application/json", json.dumps({"service": self.service, "version": self.version}).encode()
        return 404, "text/plain", b"not found\n"


@asynccontextmanager
async def health_server(health: Health, host: str, port: int) -> AsyncIterator[None]:
    """Answer GET /livez, /readyz, /metrics and /version until the block ends."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(TimeoutError, ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = await in_time(5, reader.readuntil(b"\r\n\r\n"))
            parts = head.split(b" ", 2)
            path = parts[1].split(b"?")[0].decode("latin-1") if len(parts) > 1 else "/"
            status, content_type, body = health.respond(path)
            writer.write(
                f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {content_type}\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
                + body
            )
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, host, port)
    async with server:
        yield
