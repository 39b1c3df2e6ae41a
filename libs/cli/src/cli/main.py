"""The `strata` command line."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from chassis.errors import DeadlineError
from chassis.provisioning import provision, provision_folders
from cli import asking, attacking, auditing, demonstration, disclosing, evaluating, fairness, keys, knowledge, reviewing, stopping, webhooks
from cli.connection import Settings, declare
from cli.leaving import Group, InputError
from cli.options import DEFAULT_STATE, AsJson, State, print_json
from cli.place import Place, at
from cli.processes import is_running
from cli.supervisor import StartError, Supervisor, taken_ports

app = typer.Typer(
    cls=Group, no_args_is_help=True, add_completion=False, help="Run and inspect a Strata stack.", pretty_exceptions_enable=False
)
out, err = Console(), Console(stderr=True)


@app.command()
def up(
    state: State = DEFAULT_STATE,
    offset: Annotated[int, typer.Option(help="Added to every default port, so that stacks run side by side.")] = 0,
    *,
    detach: Annotated[bool, typer.Option("--detach", help="Return when everything is ready.")] = False,
    engine: Annotated[bool, typer.Option(help="Start the local model engine.")] = True,
    timeout: Annotated[float, typer.Option(help="Longest wait with --detach, in seconds.")] = 300,
) -> None:
    """Start the whole stack and keep it running."""
    place = at(state, offset)
    running = place.stack()
    if running and is_running(running["supervisor"]):
        if detach and (running["ready"] or running.get("without_engine")):
            err.print(f"already running, supervisor pid {running['supervisor']}")
            return
        raise StartError(f"a stack already runs under {place.state_dir} (supervisor pid {running['supervisor']}); `strata down` stops it")
    if lines := taken_ports(place, engine=engine):
        raise StartError("; ".join(lines) + f". Stop what runs there, or use another --offset (now {offset}).")
    place.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    if detach:
        _detach(place, engine=engine, timeout=timeout)
    else:
        _foreground(place, engine=engine)


def _foreground(place: Place, *, engine: bool) -> None:
    started = time.monotonic()

    def report(name: str, event: str) -> None:
        err.print(f"[dim]{time.monotonic() - started:6.1f} s[/dim]  {name:<13} {event}", highlight=False, soft_wrap=True)

    async def run() -> None:
        supervisor = Supervisor(place, engine=engine, report=report)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, supervisor.stop)
        await supervisor.run()

    asyncio.run(run())


def _detach(place: Place, *, engine: bool, timeout: float) -> None:
    """Start the supervisor in a session of its own and wait until all is ready, or say why it is not."""
    (place.state_dir / "logs").mkdir(exist_ok=True, mode=0o700)
    log = place.state_dir / "logs" / "supervisor.log"
    log.touch(mode=0o600)
    command = [sys.executable, "-m", "cli", "up", "--state", str(place.state_dir), "--offset", str(place.port_offset)]
    with log.open("ab") as file:
        position = file.tell()
        child = subprocess.Popen(
            [*command, "--engine" if engine else "--no-engine"],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
            env=place.environment(),
        )
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        position = _copy(log, position)
        stack = place.stack()
        if stack and stack["supervisor"] == child.pid and stack["ready"]:
            err.print(f"ready: gateway {place.gateway_url}", highlight=False)
            return
        if stack and stack["supervisor"] == child.pid and stack["without_engine"]:
            err.print(f"ready without a model: gateway {place.gateway_url}", highlight=False)
            return
        if child.poll() is not None:
            _copy(log, position)
            raise StartError("the stack did not start; see above")
        time.sleep(0.2)
    waiting = ", ".join(p["name"] for p in (place.stack() or {"processes": []})["processes"] if not p["ready"])
    child.terminate()
    child.wait(60)
    raise StartError(f"not ready after {timeout:.0f} s: {waiting}; see {place.state_dir}/logs")


def _copy(log: Path, position: int) -> int:
    """Print what was added to the log since `position`, and return the new position."""
    with log.open("rb") as file:
        file.seek(position)
        text = file.read()
    sys.stderr.write(text.decode(errors="replace"))
    sys.stderr.flush()
    return position + len(text)


@app.command()
def init(
    state: State = DEFAULT_STATE,
    offset: Annotated[int, typer.Option(help="Added to every default port.")] = 0,
    bind_host: Annotated[str, typer.Option(help="Address the bus listens on.")] = "127.0.0.1",
    *,
    with_streams: Annotated[
        bool, typer.Option("--streams", help="Also declare streams, consumers and buckets on the running bus.")
    ] = False,
) -> None:
    """Create credentials and the bus configuration, as `up` does; for containers."""
    provision(state, port_offset=offset, bind_host=bind_host)
    provision_folders(state)
    if with_streams:
        place = at(state, offset)
        place.apply()
        asyncio.run(declare(Settings().nats_url, place.state_dir))


@app.command()
def down(state: State = DEFAULT_STATE) -> None:
    """Stop the stack and wait until everything has ended."""
    place = at(state)
    stack = place.stack()
    if not stack:
        err.print("nothing runs here")
        return
    pids = [stack["supervisor"], *(p["pid"] for p in stack["processes"] if p["pid"])]
    target = pids[:1] if is_running(pids[0]) else [pid for pid in pids if is_running(pid)]
    for pid in target:
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 60
    while any(is_running(pid) for pid in pids):
        if time.monotonic() > deadline:
            raise DeadlineError(f"still running after 60 s: {[pid for pid in pids if is_running(pid)]}")
        time.sleep(0.1)
    place.stack_file.unlink(missing_ok=True)
    err.print("stopped")


@app.command()
def status(state: State = DEFAULT_STATE, *, as_json: AsJson = False) -> None:
    """Show each process with its pid, port and readiness."""
    stack = at(state).stack()
    alive = bool(stack) and is_running(stack["supervisor"]) if stack else False
    rows: list[dict[str, Any]] = stack["processes"] if stack and alive else []
    if as_json:
        print_json({"running": alive, "ready": bool(stack and alive and stack["ready"]), "processes": rows})
    elif not alive:
        out.print("nothing runs here; `strata up` starts it")
    else:
        table = Table("process", "pid", "port", "ready", "restarts")
        for row in rows:
            table.add_row(row["name"], str(row["pid"] or "-"), str(row["port"]), "yes" if row["ready"] else "no", str(row["restarts"]))
        out.print(table)
    if not alive or not (stack and stack["ready"]):
        raise typer.Exit(3)


@app.command()
def logs(
    service: Annotated[str, typer.Argument(help="Process, such as gateway; empty for all.")] = "",
    state: State = DEFAULT_STATE,
    *,
    lines: Annotated[int, typer.Option("-n", help="Lines to show of each.")] = 40,
    follow: Annotated[bool, typer.Option("-f", help="Go on as lines are added.")] = False,
) -> None:
    """Show what the processes logged."""
    folder = at(state).state_dir / "logs"
    known = sorted(path.stem for path in folder.glob("*.log"))
    if service and service not in known:
        raise InputError(f"unknown process {service!r}; known: {known}")
    command = [
        "tail",
        "-n",
        str(lines),
        *(["-F"] if follow else []),
        *(str(folder / f"{n}.log") for n in ([service] if service else known)),
    ]
    subprocess.run(command, check=False)


app.add_typer(keys.app, name="keys")
app.add_typer(auditing.trace_app, name="trace")
app.add_typer(disclosing.app, name="audit")
app.add_typer(evaluating.router_app, name="router")
app.add_typer(knowledge.app, name="knowledge")
app.add_typer(reviewing.app, name="review")
app.add_typer(stopping.app, name="stop")
app.add_typer(fairness.app, name="fairness")
app.add_typer(webhooks.app, name="webhook")
app.command("ask")(asking.ask)
app.command("redteam")(attacking.redteam)
app.command("eval")(evaluating.evaluate)
app.command("demo")(demonstration.demo)
