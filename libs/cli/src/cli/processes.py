"""The processes of a stack, in the order in which they are started."""

import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from cli.place import Place
from contracts.identities import BY_NAME, NATS_MONITOR_PORT, NATS_PORT, VLLM_PORT, WITNESS_PORTS

SERVICE_ORDER = (
    "audit",
    "guardrail",
    "review",
    "webhooks",
    "router",
    "tool_sandbox",
    "inference",
    "ingestor",
    "retriever",
    "orchestrator",
    "gateway",
)


@dataclass(frozen=True)
class ProcessSpec:
    """One process: how it is started and how it says that it is ready."""

    name: str
    command: tuple[str, ...]
    port: int
    # Path that answers 200 when ready; empty means that an open port is enough.
    ready_path: str
    # Processes that must be ready before it starts.
    after: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    stop_seconds: float = 15.0


def nats_command(place: Place) -> tuple[str, ...]:
    """Return the command line of the bus."""
    binary = Path(sys.executable).with_name("nats-server")
    return (str(binary) if binary.exists() else "nats-server", "-c", str(place.state_dir / "nats.conf"))


def _witness(place: Place, number: int, port: int) -> ProcessSpec:
    """Return a witness of the audit log, with a folder and a key of its own."""
    name, log_key = f"witness-{number}", f"@{place.state_dir / 'credentials' / 'audit_log.vkey'}"
    command = (sys.executable, "-m", "witness", "--state", str(place.state_dir / name), "--port", str(port), "--log", log_key)
    return ProcessSpec(name, command, port, "/readyz", stop_seconds=5)


def specs(place: Place, *, engine: bool = True) -> list[ProcessSpec]:
    """Return the processes of the stack; without `engine` no model is served."""
    offset, python = place.port_offset, sys.executable
    result = [ProcessSpec("nats", nats_command(place), NATS_PORT + offset, "", stop_seconds=20)]
    if engine:
        result.append(ProcessSpec("engine", (python, "-m", "inference.engine"), VLLM_PORT + offset, "/health", ("nats",)))
    witness_ports = [port + offset for port in WITNESS_PORTS]
    result += [_witness(place, number, port) for number, port in enumerate(witness_ports, start=1)]
    witnesses = json.dumps([{"url": f"http://127.0.0.1:{port}"} for port in witness_ports])
    for name in SERVICE_ORDER:
        # Witnesses that an operator names take the place of the local ones.
        environment = {"STRATA_AUDIT_WITNESSES": os.environ.get("STRATA_AUDIT_WITNESSES", witnesses)} if name == "audit" else {}
        after = {"retriever": ("nats", "ingestor"), "gateway": ("nats", "audit", "orchestrator")}.get(name, ("nats",))
        result.append(ProcessSpec(name, (python, "-m", name), BY_NAME[name].http_port + offset, "/readyz", after, environment))
    return result


def ports(place: Place, *, engine: bool = True) -> dict[int, str]:
    """Return every port that the stack will listen on, with who will."""
    taken = {spec.port: spec.name for spec in specs(place, engine=engine)}
    taken[NATS_MONITOR_PORT + place.port_offset] = "nats (monitoring)"
    for name in SERVICE_ORDER:
        grpc_port = BY_NAME[name].grpc_port
        if grpc_port is not None:
            taken[grpc_port + place.port_offset] = f"{name} (gRPC)"
    return taken


def is_running(pid: int) -> bool:
    """Return whether a process with this pid lives and is not a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (OSError, IndexError):
        return False
    return state != "Z"
