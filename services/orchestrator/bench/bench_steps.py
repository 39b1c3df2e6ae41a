"""Five empty steps through the real engine against five bare revision-checked writes, on one server that syncs every write."""

# ruff: noqa: INP001 - a script

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop

from chassis import logging, messaging
from chassis.stops import Stops
from contracts.streams import RUNS
from orchestrator.answer_cache import AnswerCache
from orchestrator.catalogue import Catalogue
from orchestrator.conductor import Conductor
from orchestrator.engine import Engine
from orchestrator.recording import Recorder
from orchestrator.records import RunStore
from orchestrator.runs import Outcome, Run, Tools
from orchestrator.settings import Settings
from orchestrator.workflows import Step, Workflow, parse
from strata.gateway.v1.gateway_events_pb2 import Caller, RequestAdmitted
from testkit.nats import nats_server

STEPS = 5
WORKFLOW = """
name: empty
version: "1"
roles: [app]
deadlines_seconds: {administrative: 60, standard: 60, complex: 60}
budget: {model_calls: 0, tool_calls: 0, output_tokens: 0}
steps:
""" + "".join(f"  - {{id: s{n}, kind: empty, needs: [{f's{n - 1}' if n else ''}]}}\n" for n in range(STEPS))
VALUE_BYTES = 600


async def empty(_: Run, __: Step) -> Outcome:
    """Do nothing, so that only the engine's own cost is left."""
    return Outcome({"text": "", "status": "completed"}, details={"status": "completed"})


async def measure(one: Callable[[str], Awaitable[None]], label: str, *, runs: int, concurrency: int) -> dict[str, float]:
    """Return percentiles in milliseconds of `runs` calls, so many at a time."""
    times: list[float] = []
    names = iter(f"{label}-{number}" for number in range(runs))

    async def worker() -> None:
        for name in names:
            began = time.perf_counter()
            await one(name)
            times.append((time.perf_counter() - began) * 1000)

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(worker() for _ in range(concurrency)))
    wall, busy = time.perf_counter() - began, time.process_time() - cpu
    times.sort()
    return {
        "p50_ms": statistics.median(times),
        "p95_ms": times[int(len(times) * 0.95)],
        "per_s": runs / wall,
        "cpu_ms": busy * 1000 / runs,
    }


def bare_run(bus: messaging.Bus) -> Callable[[str], Awaitable[None]]:
    """Return the floor: a value that is created, then written five times, each time with the revision before."""

    async def one(name: str) -> None:
        revision = 0
        for _ in range(STEPS):
            headers = {"Nats-Expected-Last-Subject-Sequence": str(revision)}
            ack = await bus.js.publish(f"$KV.{RUNS}.bare.{name}", b"x" * VALUE_BYTES, headers=headers)
            revision = ack.seq

    return one


def engine_run(bus: messaging.Bus) -> Callable[[str], Awaitable[None]]:
    """Return a run as it is served, from the decoded message to the finished record, audit records included."""
    workflow: Workflow = parse(WORKFLOW, where="bench", domain="bench", sha256="0" * 64, kinds=["empty"])
    settings = Settings()
    declared = Catalogue({"empty": workflow}, {}, {}, {})
    peers: Any = None
    tools = Tools(settings, declared, RunStore(bus, limit_bytes=settings.record_limit_bytes), Recorder(bus), peers, AnswerCache(bus))
    conductor = Conductor(bus, tools, Engine({"empty": empty}, attempts=1), Stops(bus))

    async def one(name: str) -> None:
        request = RequestAdmitted(request_id=name, trace_id="0" * 32, caller=Caller(tenant="bench", role="app"), workflow="empty")
        request.received_at.GetCurrentTime()
        await conductor.handle(request)

    return one


async def main() -> None:
    """Print both, interleaved in three rounds, as medians of the rounds, and their ratio."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with tempfile.TemporaryDirectory() as folder, nats_server(Path(folder) / "state") as server:
        await server.declare()
        os.environ |= {"STRATA_STATE_DIR": str(server.state_dir), "STRATA_PORT_OFFSET": str(server.port_offset)}
        bus = await messaging.connect(Settings(), "orchestrator")
        subjects = {"bare": bare_run(bus), "engine": engine_run(bus)}
        for concurrency, runs in ((1, 200), (16, 640)):
            found: dict[str, list[dict[str, float]]] = {name: [] for name in subjects}
            for number in range(rounds):
                for name, one in subjects.items():
                    label = f"{name}-{concurrency}-{number}"
                    found[name].append(await measure(one, label, runs=runs, concurrency=concurrency))
            medians = {
                name: {key: round(statistics.median(r[key] for r in results), 2) for key in results[0]} for name, results in found.items()
            }
            ratio = {key: round(medians["engine"][key] / medians["bare"][key], 2) for key in ("p50_ms", "p95_ms")}
            print(json.dumps({"concurrency": concurrency, "runs": runs, "rounds": rounds, **medians, "ratio": ratio}))  # noqa: T201
        await bus.drain()


if __name__ == "__main__":
    logging.configure("bench", "WARNING")
    uvloop.run(main())
