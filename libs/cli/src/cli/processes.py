"""The processes of a stack, in the order in which they are started."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from cli.place import Place
from contracts.identities import BY_NAME, NATS_PORT, VLLM_PORT

SERVICE_ORDER = ("audit", "guardrail", "review", "router", "tool_sandbox", "inference", "ingestor", "retriever", "orchestrator", "gateway")


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


def specs(place: Place, *, engine: bool = True) -> list[ProcessSpec]:
    """Return the processes of the stack; without `engine` no model is served."""
    offset, python = place.port_offset, sys.executable
    result = [ProcessSpec("nats", nats_command(place), NATS_PORT + offset, "", stop_seconds=20)]
    if engine:
        result.append(ProcessSpec("engine", (python, "-m", "inference.engine"), VLLM_PORT + offset, "/health", ("nats",)))
    for name in SERVICE_ORDER:
        after = {"retriever": ("nats", "ingestor"), "gateway": ("nats", "audit", "orchestrator")}.get(name, ("nats",))
        result.append(ProcessSpec(name, (python, "-m", name), BY_NAME[name].http_port + offset, "/readyz", after))
    return result


def ports(place: Place, *, engine: bool = True) -> dict[int, str]:
    """Return every port that the stack will listen on, with who will."""
    taken = {spec.port: spec.name for spec in specs(place, engine=engine)}
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
