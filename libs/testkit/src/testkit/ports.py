"""Ports that a test gives to a server which it starts."""

import random
import socket
import tempfile
from pathlib import Path
from typing import BinaryIO

from chassis.file_locks import try_lock

LOCKS = Path(tempfile.gettempdir()) / "strata-ports"
# Below every port of a stack at any offset and of outgoing connections, so that none of them takes it before the server does.
_LOWEST, _HIGHEST = 1_100, 5_100
_held: list[BinaryIO] = []


def lock(name: int | str) -> BinaryIO | None:
    """Return the open lock of a port or of an offset, or None while another process of tests has it."""
    LOCKS.mkdir(exist_ok=True)
    return try_lock(LOCKS / str(name))


def is_free(port: int) -> bool:
    """Tell whether nobody listens on a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def free_port(*, beside: int = 0) -> int:
    """Return a port that is this process's until it ends, with the one that is `beside` above it; raise RuntimeError without any."""
    wanted = (0, beside) if beside else (0,)
    for _ in range(400):
        port = random.randrange(_LOWEST, _HIGHEST)
        locks = [lock(f"port-{port + above}") for above in wanted]
        mine = [file for file in locks if file is not None]
        if len(mine) == len(wanted) and all(is_free(port + above) for above in wanted):
            _held.extend(mine)
            return port
        for file in mine:
            file.close()
    raise RuntimeError("no free port")
