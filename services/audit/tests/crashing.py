"""Writes a log in processes that are killed again and again: `python crashing.py STATE CRASHES SEED`; prints what was acknowledged."""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

from audit.keys import KeyVault, load_master_key
from audit.ledger import Ledger, Received
from audit.trust import load_signer
from audit.view import View
from chassis.provisioning import provision_log

# Most groups that one process writes before it is killed.
_MOST_GROUPS = 40


def _received(sequence: int) -> Received:
    record = {
        "record_id": f"x/{sequence}",
        "tenant": "acme",
        "request_id": f"r{sequence % 7}",
        "step": "route",
        "details": {"pad": "y" * 200},
    }
    return Received(sequence, f"2026-11-21T08:00:00.{sequence:06d}+00:00", record)


def _open(state: Path) -> Ledger:
    signer, credentials = load_signer(state), state / "credentials" / "audit"
    vault, view = (
        KeyVault(credentials / "keys.db", load_master_key(credentials / "master.key")),
        View(state / "audit_run" / "v.db", signer.name),
    )
    return Ledger(state / "audit", signer, vault, view, segment_bytes=20_000, min_free_bytes=0)


def _kill_at_call(nth: int, rng: random.Random) -> None:
    """Die before or after the nth call that reaches the disk, or in the middle of a write."""
    calls, after = iter(range(1, 10**9)), rng.random() < 0.5

    def wrapped(real: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            due = next(calls) == nth
            if due and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*arguments, **options)
            if due:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    def torn(self: Ledger, content: bytes) -> None:
        if next(calls) >= nth:
            whole(self, content[: rng.randrange(len(content))])
            os.kill(os.getpid(), signal.SIGKILL)
        whole(self, content)

    whole = Ledger._write
    for holder, name in ((os, "fdatasync"), (os, "fsync"), (os, "truncate"), (Path, "replace")):
        setattr(holder, name, wrapped(getattr(holder, name)))
    Ledger._write = torn  # type: ignore[method-assign]


def _write(state: Path, first: int, pipe: int, crash: int, rng: random.Random) -> None:
    """Append groups and tell each as soon as it is acknowledged, until killed."""
    if crash % 2:
        _kill_at_call(rng.randrange(1, 60), rng)
    ledger = _open(state)
    for _ in range(_MOST_GROUPS):
        # Some of what was acknowledged comes again, as the bus delivers it again.
        start = max(first - rng.randrange(6), 1)
        end = first + rng.randrange(1, 12)
        ledger.append([_received(sequence) for sequence in range(start, end)])
        os.write(pipe, f"{end - 1}\n".encode())
        first = end
    os.kill(os.getpid(), signal.SIGKILL)


def _crash(state: Path, first: int, crash: int, seed: int) -> int:
    """Run one writer until it is dead; return the last number that it acknowledged."""
    rng = random.Random(seed * 1000 + crash)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            _write(state, first, writing, crash, rng)
        except BaseException as error:  # noqa: BLE001 - a child must never return
            sys.stderr.write(f"crash {crash}: {error!r}\n")
            os._exit(1)
    os.close(writing)
    if not crash % 2:
        time.sleep(rng.random() * 0.08)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        sys.exit(f"writer {crash} ended by itself")
    with os.fdopen(reading, "rb") as file:
        told = file.read().split()
    return int(told[-1]) if told else first - 1


def main() -> None:
    """Crash, go on, and at the end write what was in flight."""
    state, crashes, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    provision_log(state / "credentials")
    acknowledged = 0
    for crash in range(crashes):
        acknowledged = max(acknowledged, _crash(state, acknowledged + 1, crash, seed))
    ledger = _open(state)
    ledger.append([_received(sequence) for sequence in range(max(acknowledged - 5, 1), acknowledged + 20)])
    ledger.close()
    sys.stdout.write(json.dumps({"acknowledged": acknowledged}))


if __name__ == "__main__":
    main()
