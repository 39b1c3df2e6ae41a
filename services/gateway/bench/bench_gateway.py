# ruff: noqa: INP001 - a script
"""Measures the gateway process alone: CPU per request and per streamed chunk, against a mock upstream on a real bus.

Run: `python services/gateway/bench/bench_gateway.py [--requests 400] [--chunks 50]`. Prints one JSON object.
The gateway is its own process; load and mock run in this one, so their CPU is not counted.
"""

import argparse
import asyncio
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from chassis.json_mapping import to_json_bytes
from chassis.messaging import Bus, cloud_event, connect, encode
from chassis.provisioning import load_signing_key
from chassis.settings import ServiceSettings
from contracts import keys, releases
from contracts.streams import KEYS, ORCHESTRATOR_INTERACTIVE
from contracts.subjects import RESPONSE
from strata.gateway.v1.gateway_events_pb2 import RequestAdmitted
from strata.guardrail.v1.guardrail_service_pb2 import ReleaseClaims
from strata.orchestrator.v1.orchestrator_events_pb2 import Citation, Completion, ResponseReleased, StepUsage
from testkit.nats import NatsServer, nats_server

REPOSITORY = Path(__file__).parents[3]
_TEXT = "The clinic is open on weekdays from eight to six. "


class _Settings(ServiceSettings):
    """Settings of the mock."""


def _completion() -> Completion:
    return Completion(
        status="completed",
        finish_reason="stop",
        request_class="simple_lookup",
        tier="small",
        model="mock",
        confidence=0.9,
        citations=[Citation(id=str(i), title="Hours", version="1", date="2026-01-01", quote=_TEXT * 2) for i in (1, 2)],
        verdict="allow",
        prompt_tokens=40,
        completion_tokens=60,
        steps=[StepUsage(step_id=name, latency_ms=1.5) for name in ("input", "route", "passages", "answer", "release")],
        workflow="chat@1",
        latency_ms={"total": 10.0, "input": 1.0},
    )


async def _mock(bus: Bus, state_dir: Path, chunks: dict[str, int]) -> None:
    """Answer every admitted request at once with as many signed windows as asked for."""
    key_id, key = load_signing_key(state_dir)
    subscription = await bus.js.pull_subscribe_bind(ORCHESTRATOR_INTERACTIVE.name, stream="REQUESTS")

    async def answer(data: bytes) -> None:
        request = RequestAdmitted.FromString(data)
        last = (chunks["n"] if request.stream else 1) - 1
        subject = RESPONSE.at(tenant=request.caller.tenant, request_id=request.request_id)
        for sequence in range(last + 1):
            claims = ReleaseClaims(
                request_id=request.request_id,
                trace_id=request.trace_id,
                tenant=request.caller.tenant,
                sequence=sequence,
                final=sequence == last,
                status="completed",
            )
            if sequence == last:
                claims.completion_sha256 = releases.completion_digest(json.loads(to_json_bytes(_completion())))
            release = releases.sign(key, key_id, claims, _TEXT)
            response = ResponseReleased(request_id=request.request_id, trace_id=request.trace_id, release=release)
            if sequence == last:
                response.completion.CopyFrom(_completion())
            headers = cloud_event("orchestrator", RESPONSE, event_id=f"{request.request_id}/{sequence}", about=request.request_id)
            await bus.client.publish(subject, encode(RESPONSE, response), headers=headers)
            if chunks["pause_ms"]:
                await asyncio.sleep(chunks["pause_ms"] / 1000)

    while True:
        try:
            messages = await subscription.fetch(32, timeout=5)
        except TimeoutError:
            continue
        for message in messages:
            await message.ack()
        await asyncio.gather(*(answer(message.data) for message in messages))


class _Client:
    """One keep-alive connection, as raw as it gets."""

    def __init__(self, port: int, key: str, *, stream: bool) -> None:
        messages = [{"role": "system", "content": "You are brief."}, {"role": "user", "content": "When is the clinic open? " * 8}]
        body = json.dumps({"model": "auto", "messages": messages, "max_tokens": 60, "stream": stream}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
        self._port, self._stream = port, stream
        self._request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    async def open(self) -> "_Client":
        """Connect."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def ask(self) -> float:
        """Send one request and read the whole answer; return the milliseconds it took."""
        started = time.perf_counter()
        self._writer.write(self._request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head[:20]:
            raise RuntimeError(head.decode() + (await self._reader.read(500)).decode())
        if self._stream:
            body = await self._reader.readuntil(b"0\r\n\r\n")
            if not body.rstrip().endswith(b"data: [DONE]\n\n\r\n0"):
                raise RuntimeError(body[-200:].decode())
        else:
            size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await self._reader.readexactly(size)
        return (time.perf_counter() - started) * 1000

    def close(self) -> None:
        """Disconnect."""
        self._writer.close()


def _cpu(process: psutil.Process) -> tuple[float, float]:
    times = process.cpu_times()
    return times.user, times.system


async def _load(port: int, key: str, process: psutil.Process, *, stream: bool, concurrency: int, requests: int) -> dict[str, float]:
    clients = [await _Client(port, key, stream=stream).open() for _ in range(concurrency)]

    async def worker(client: _Client, count: int) -> list[float]:
        return [await client.ask() for _ in range(count)]

    await asyncio.gather(*(worker(client, 5) for client in clients))
    each = max(1, requests // concurrency)
    before, started = _cpu(process), time.perf_counter()
    found = sorted(itertools.chain.from_iterable(await asyncio.gather(*(worker(client, each) for client in clients))))
    seconds = time.perf_counter() - started
    user, system = (after - earlier for after, earlier in zip(_cpu(process), before, strict=True))
    for client in clients:
        client.close()
    return {
        "requests": len(found),
        "cpu_ms_per_request": round((user + system) * 1000 / len(found), 3),
        "of_which_system_ms": round(system * 1000 / len(found), 3),
        "p50_ms": round(statistics.median(found), 2),
        "p95_ms": round(found[int(len(found) * 0.95)], 2),
        "requests_per_second": round(len(found) / seconds, 1),
    }


async def _ready(port: int) -> None:
    for _ in range(600):
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = await reader.read()
            writer.close()
            if b" 200 " in answer[:20]:
                return
        except OSError:
            pass
        await asyncio.sleep(0.1)
    raise RuntimeError("the gateway did not become ready")


async def _measure(server: NatsServer, arguments: argparse.Namespace) -> dict[str, object]:
    await server.declare()
    admin = await server.connect()
    new = keys.new_key()
    record = {"key_id": new.key_id, "digest": new.digest, "tenant": "acme", "role": "app", "user": "", "created_at": ""}
    await (await admin.jetstream().key_value(KEYS)).put(new.key_id, json.dumps(record).encode())
    port = 8080 + server.port_offset
    big = {"requests_per_minute": 10_000_000, "request_burst": 1_000_000, "tokens_per_minute": 1_000_000_000, "max_concurrent": 1000}
    environment = os.environ | {"STRATA_GATEWAY_LIMITS": json.dumps(big), "STRATA_LOG_LEVEL": "WARNING"}
    command = [*arguments.prefix.split(), sys.executable, "-m", "gateway"]
    gateway = subprocess.Popen(command, env=environment)  # noqa: ASYNC220 - starting it takes no time
    bus = await connect(_Settings(), "orchestrator")
    chunks = {"n": 1, "pause_ms": 0}
    mock = asyncio.create_task(_mock(bus, server.state_dir, chunks))
    result: dict[str, object] = {"host": f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"}
    try:
        await _ready(port)
        process = psutil.Process(gateway.pid)
        for concurrency in (1, 16):
            result[f"json_c{concurrency}"] = await _load(
                port, new.plain, process, stream=False, concurrency=concurrency, requests=arguments.requests
            )
            count = max(32, arguments.requests // 4)
            few, many = [
                await _streams(port, new.plain, process, chunks, n, concurrency, count, arguments.pause_ms) for n in (1, arguments.chunks)
            ]
            per_chunk = (many["cpu_ms_per_request"] - few["cpu_ms_per_request"]) / (arguments.chunks - 1)
            result[f"stream_c{concurrency}"] = {
                "one_chunk": few,
                f"{arguments.chunks}_chunks": many,
                "cpu_ms_per_chunk": round(per_chunk, 4),
            }
        result["rss_mib"] = round(process.memory_info().rss / 2**20, 1)
    finally:
        mock.cancel()
        gateway.terminate()
        gateway.wait(20)
        await bus.drain()
        await admin.close()
    return result


async def _streams(
    port: int, key: str, process: psutil.Process, chunks: dict[str, int], n: int, concurrency: int, requests: int, pause_ms: int
) -> dict[str, float]:
    chunks["n"], chunks["pause_ms"] = n, pause_ms
    found = await _load(port, key, process, stream=True, concurrency=concurrency, requests=requests)
    chunks["pause_ms"] = 0
    return found


def main() -> None:
    """Run the benchmark and print its result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--chunks", type=int, default=50)
    parser.add_argument("--pause-ms", type=int, default=2, help="between windows; 0 lets the gateway take several at once")
    parser.add_argument("--prefix", default="", help="command before the gateway, such as a profiler")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, nats_server(Path(folder) / "state") as server:
        os.environ |= {
            "STRATA_STATE_DIR": str(server.state_dir),
            "STRATA_PORT_OFFSET": str(server.port_offset),
            "STRATA_HOME": str(REPOSITORY),
        }
        print(json.dumps(asyncio.run(_measure(server, arguments)), indent=1))  # noqa: T201 - its purpose


if __name__ == "__main__":
    main()
