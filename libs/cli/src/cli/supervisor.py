"""Keeps the processes of a stack running: starts them in order, restarts what dies, stops them cleanly."""

import asyncio
import ctypes
import json
import os
import signal
import socket
import time
from asyncio.subprocess import Process
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

import nats

from chassis.errors import FailedPreconditionError
from chassis.provisioning import provision, write_private
from chassis.tasks import in_time
from cli.connection import declare
from cli.place import Place
from cli.processes import ProcessSpec, ports, specs
from contracts.identities import NATS_PORT

_RESTART_DELAYS = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)
_STABLE_SECONDS = 30.0
_LOG_BYTES = 64 * 1024 * 1024
_PR_SET_PDEATHSIG = 1
# Looks in a row that find nothing missing but an engine; the first question to one that runs elsewhere takes a moment.
_LOOKS = 7
_READY, _NOT_READY = 200, 503


class StartError(FailedPreconditionError):
    """The stack cannot start; the message says what to do."""

    default_code = "not_started"


def taken_ports(place: Place, *, engine: bool) -> list[str]:
    """Return one line for each port of the stack that something else listens on."""
    lines = []
    for port, name in ports(place, engine=engine).items():
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                lines.append(f"port {port}, needed by {name}, is taken")
    return lines


def _prepare_child() -> None:
    """Let nobody else read what this child writes, and ask the kernel to end it with the supervisor, so that nothing is orphaned."""
    os.umask(0o077)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@dataclass
class _Child:
    """One process and how it is doing."""

    spec: ProcessSpec
    process: Process | None = None
    started_at: float = 0.0
    ready: bool = False
    restarts: int = 0
    failures: int = 0

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process and self.process.returncode is None else None


class Supervisor:
    """Runs one stack until it is told to stop."""

    def __init__(self, place: Place, *, engine: bool, report: Callable[[str, str], None]) -> None:
        """Prepare; `report(process, event)` is told whatever a person may want to see."""
        self._place = place
        self._children = {spec.name: _Child(spec) for spec in specs(place, engine=engine)}
        self._engine = engine
        self._report = report
        self._looks_without_engine = 0
        self._stopping = asyncio.Event()
        self._logs: dict[str, BinaryIO] = {}

    def stop(self) -> None:
        """Begin to stop; `run` returns when everything has ended."""
        self._stopping.set()

    async def run(self) -> None:
        """Start, watch and finally stop every process; raise StartError when the stack cannot start."""
        if lines := taken_ports(self._place, engine=self._engine):
            raise StartError("; ".join(lines) + f". Stop what runs there, or use another --offset (now {self._place.port_offset}).")
        provision(self._place.state_dir, port_offset=self._place.port_offset)
        (self._place.state_dir / "logs").mkdir(exist_ok=True, mode=0o700)
        watchers = [asyncio.create_task(self._keep(child)) for child in self._children.values()]
        try:
            while not self._stopping.is_set():
                await self._refresh()
                with suppress(TimeoutError):
                    await in_time(0.3, self._stopping.wait())
        finally:
            for watcher in watchers:
                watcher.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)
            await self._stop_all()

    async def _keep(self, child: _Child) -> None:
        """Start one process when those before it are ready, and again whenever it dies."""
        before = [self._children[name] for name in child.spec.after if name in self._children]
        while not all(other.ready for other in before):  # noqa: ASYNC110 - readiness is polled, not signalled
            await asyncio.sleep(0.05)
        while not self._stopping.is_set():
            await self._spawn(child)
            assert child.process is not None  # noqa: S101 - set by _spawn
            code = await child.process.wait()
            child.ready = False
            _end_group(child.process.pid)
            if self._stopping.is_set():
                return
            lived = time.monotonic() - child.started_at
            child.failures = 0 if lived > _STABLE_SECONDS else child.failures + 1
            child.restarts += 1
            delay = _RESTART_DELAYS[min(child.failures, len(_RESTART_DELAYS) - 1)]
            self._report(child.spec.name, f"ended with code {code} after {lived:.1f} s, restarting{self._last_line(child.spec.name)}")
            await asyncio.sleep(delay)

    async def _spawn(self, child: _Child) -> None:
        log = self._log(child.spec.name)
        child.process = await asyncio.create_subprocess_exec(
            *child.spec.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**self._place.environment(), **child.spec.environment},
            preexec_fn=_prepare_child,
            start_new_session=True,
        )
        child.started_at = time.monotonic()
        self._report(child.spec.name, f"started, pid {child.process.pid}")

    def _log(self, name: str) -> BinaryIO:
        path = self._place.state_dir / "logs" / f"{name}.log"
        if path.exists() and path.stat().st_size > _LOG_BYTES:
            path.replace(path.with_suffix(".log.1"))
            self._logs.pop(name, None)
        if name not in self._logs:
            path.touch(mode=0o600)
            self._logs[name] = path.open("ab")
        return self._logs[name]

    def _last_line(self, name: str) -> str:
        lines = (self._place.state_dir / "logs" / f"{name}.log").read_bytes()[-4000:].decode(errors="replace").splitlines()
        return f" (last line: {lines[-1][:200]})" if lines else ""

    async def _refresh(self) -> None:
        """Ask every process whether it is ready, and write down the answer."""
        children = list(self._children.values())
        answers = await asyncio.gather(*(self._is_ready(child) for child in children))
        for child, ready in zip(children, answers, strict=True):
            if ready != child.ready:
                self._report(child.spec.name, f"ready after {time.monotonic() - child.started_at:.1f} s" if ready else "not ready")
            child.ready = ready
        self._looks_without_engine = self._looks_without_engine + 1 if await self._waits_for_engine() else 0
        if self._looks_without_engine == _LOOKS:
            self._report("inference", "no engine answers, and --no-engine starts none; what needs no model works")
        self._write()

    async def _waits_for_engine(self) -> bool:
        """Return whether all is ready but inference, which answers that it has no engine, where nobody here starts one."""
        waiting = [child.spec for child in self._children.values() if not child.ready]
        if self._engine or [spec.name for spec in waiting] != ["inference"]:
            return False
        return await _http_status(waiting[0].port, waiting[0].ready_path) == _NOT_READY

    async def _is_ready(self, child: _Child) -> bool:
        if child.pid is None:
            return False
        if not child.spec.ready_path:
            return child.ready or await self._bus_is_ready()
        return await _http_status(child.spec.port, child.spec.ready_path) == _READY

    async def _bus_is_ready(self) -> bool:
        """Return whether the bus answers; its streams are declared then."""
        try:
            await declare(f"nats://127.0.0.1:{NATS_PORT + self._place.port_offset}", self._place.state_dir)
        except (OSError, nats.errors.Error, TimeoutError):
            return False
        return True

    def _write(self) -> None:
        rows = [
            {"name": c.spec.name, "pid": c.pid, "ready": c.ready, "port": c.spec.port, "restarts": c.restarts}
            for c in self._children.values()
        ]
        content = {
            "supervisor": os.getpid(),
            "port_offset": self._place.port_offset,
            "ready": all(c.ready for c in self._children.values()),
            "without_engine": self._looks_without_engine >= _LOOKS,
        }
        write_private(self._place.stack_file, json.dumps({**content, "processes": rows}, indent=1).encode())

    async def _stop_all(self) -> None:
        """Stop in the reverse order, so that whoever drains still has what it needs."""
        self._report("stack", "stopping")
        needed = {name for child in self._children.values() for name in child.spec.after}
        leaves = [name for name in self._children if name not in needed]
        middle = [name for name in self._children if name in needed and name != "nats"]
        for wave in (leaves, middle, ["nats"]):
            await asyncio.gather(*(self._stop_one(self._children[name]) for name in wave))
        self._place.stack_file.unlink(missing_ok=True)
        for log in self._logs.values():
            log.close()
        self._report("stack", "stopped")

    async def _stop_one(self, child: _Child) -> None:
        if child.pid is None or child.process is None:
            return
        with suppress(ProcessLookupError):
            child.process.send_signal(signal.SIGTERM)
        try:
            await in_time(child.spec.stop_seconds, child.process.wait())
        except TimeoutError:
            self._report(child.spec.name, f"did not stop within {child.spec.stop_seconds:.0f} s, killed")
            child.process.kill()
            await child.process.wait()
        _end_group(child.process.pid)


def _end_group(leader: int) -> None:
    """End what a process that has ended left behind: the engine's workers would keep its memory and its port."""
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


async def _http_status(port: int, path: str) -> int:
    """Return how a GET is answered within a second; 0 without an answer."""
    try:
        async with asyncio.timeout(1):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            line = await reader.readline()
            writer.close()
    except (OSError, TimeoutError):
        return 0
    status = line.split(b" ")[1:2]
    return int(status[0]) if status and status[0].isdigit() else 0
