"""A server that runs as a child process for as long as something needs it, with whatever processes it starts."""

import ctypes
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from chassis.errors import UnavailableError

_STOP_SECONDS = 20
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)
_ENDING_CHARACTERS = 4000


def free_port() -> int:
    """Return a port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(command: Sequence[str], environment: Mapping[str, str], *, ready_url: str, log: Path, start_seconds: float) -> Iterator[None]:
    """Run a server with what is added to the environment until the block ends, which begins when `ready_url` answers.

    Raises UnavailableError with the end of the log for one that ends before or does not answer within `start_seconds`.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdout=output,
            stderr=output,
            # A group of its own: a server's workers do not always end with it.
            start_new_session=True,
            preexec_fn=_end_with_parent,  # noqa: PLW1509 - between fork and exec it does nothing but one call of the kernel
        )
    try:
        if not _answers(ready_url, process, time.monotonic() + start_seconds):
            ending = log.read_text(errors="replace")[-_ENDING_CHARACTERS:]
            raise UnavailableError(f"{command[0]} did not answer within {start_seconds:.0f} s, or ended: {ending}")
        yield
    finally:
        _stop(process)


def _end_with_parent() -> None:
    """Ask the kernel to end this process with the thread that started it, which may be killed before it can do so itself."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _answers(url: str, process: subprocess.Popen[bytes], deadline: float) -> bool:
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - http, to ourselves
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.25)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
