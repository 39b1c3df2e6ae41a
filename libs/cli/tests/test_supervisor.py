"""The stack as a set of processes: started in order, restarted when they die, stopped cleanly."""

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

import pytest
import yaml

from chassis.tasks import in_time
from cli.place import Place
from cli.processes import ProcessSpec, is_running, nats_command, ports, specs
from cli.supervisor import StartError, Supervisor, taken_ports
from contracts.identities import NATS_PORT, SERVICES
from testkit.nats import free_port_offset

_SERVER = (
    "import http.server,sys;http.server.HTTPServer(('127.0.0.1',int(sys.argv[1])),http.server.SimpleHTTPRequestHandler).serve_forever()"
)
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A stack of its own on free ports."""
    (tmp_path / "state").mkdir()
    return Place(tmp_path / "state", free_port_offset())


@pytest.fixture
def small(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A stack of two real processes: the bus, and a web server that needs it."""
    # That of a process which does not run here: no other stack has it.
    port = 8080 + place.port_offset
    two = [
        ProcessSpec("nats", nats_command(place), NATS_PORT + place.port_offset, ""),
        ProcessSpec("web", (sys.executable, "-c", _SERVER, str(port)), port, "/", ("nats",)),
    ]
    monkeypatch.setattr("cli.supervisor.specs", lambda *_, **__: two)
    return place


async def _until(place: Place, condition) -> dict:
    for _ in range(1800):
        stack = place.stack()
        if stack and condition(stack):
            return stack
        await asyncio.sleep(0.1)
    raise AssertionError(place.stack())


async def test_a_process_that_dies_is_started_again(small: Place) -> None:
    """After kill -9 the stack becomes ready again with another pid; at the end nothing runs, and what is left nobody else can read."""
    events: list[tuple[str, str]] = []
    supervisor = Supervisor(small, engine=False, report=lambda name, event: events.append((name, event)))
    running = asyncio.create_task(supervisor.run())
    first = await _until(small, lambda s: s["ready"])
    pids = {p["name"]: p["pid"] for p in first["processes"]}

    os.kill(pids["web"], signal.SIGKILL)
    second = await _until(small, lambda s: s["ready"] and s["processes"][1]["pid"] not in {None, pids["web"]})
    supervisor.stop()
    await in_time(180, running)

    assert second["processes"][1]["restarts"] == 1
    assert [name for name, event in events if event.startswith("started")][:2] == ["nats", "web"]
    assert not any(is_running(p["pid"]) for p in second["processes"])
    assert small.stack() is None
    assert {path.stat().st_mode & 0o077 for path in (small.state_dir, *small.state_dir.rglob("*"))} == {0}


async def test_a_stack_whose_engine_nobody_starts_says_so(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --no-engine and none elsewhere, all but inference is there; that is told in one line and written where `up` waits for it."""
    port = 8080 + place.port_offset
    no_engine = _SERVER.replace(
        "http.server.SimpleHTTPRequestHandler", "type('H',(http.server.BaseHTTPRequestHandler,),{'do_GET':lambda s:s.send_error(503)})"
    )
    two = [
        ProcessSpec("nats", nats_command(place), NATS_PORT + place.port_offset, ""),
        ProcessSpec("inference", (sys.executable, "-c", no_engine, str(port)), port, "/readyz", ("nats",)),
    ]
    monkeypatch.setattr("cli.supervisor.specs", lambda *_, **__: two)
    events: list[tuple[str, str]] = []
    supervisor = Supervisor(place, engine=False, report=lambda name, event: events.append((name, event)))
    running = asyncio.create_task(supervisor.run())

    told = await _until(place, lambda s: s["without_engine"])
    supervisor.stop()
    await in_time(180, running)

    assert not told["ready"]
    assert [event for _, event in events if "no engine answers" in event] == [
        "no engine answers, and --no-engine starts none; what needs no model works"
    ]


async def test_a_taken_port_is_named_with_who_needs_it(place: Place) -> None:
    """The message says which port and which process, before anything is started."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 8080 + place.port_offset))
        listener.listen()

        lines = taken_ports(place, engine=False)
        with pytest.raises(StartError, match="needed by gateway"):
            await Supervisor(place, engine=False, report=lambda *_: None).run()

    assert lines == [f"port {8080 + place.port_offset}, needed by gateway, is taken"]


def test_two_stacks_share_no_port(tmp_path: Path) -> None:
    """Another offset moves every port."""
    one, two = Place(tmp_path / "a", 0), Place(tmp_path / "b", 1000)

    assert not set(ports(one)) & set(ports(two))


def test_compose_runs_the_same_processes() -> None:
    """docker-compose.yml has each process of the stack, started by the same module."""
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    expected = {spec.name.replace("_", "-") for spec in specs(Place(Path("s"), 0))}

    assert expected <= set(compose)
    for identity in (s for s in SERVICES if s.name != "cdc"):
        if identity.name != "cli":
            assert compose[identity.name.replace("_", "-")]["command"][-1] == identity.name
