"""The log and its witnesses, each a process with a key and a memory of its own."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from audit import checkpoints, witnessing
from audit.ledger import Ledger
from audit.main import start
from audit.proving import Prover
from audit.settings import Settings, WitnessSettings
from audit.verification import verify
from audit.witnessing import NotCosignedError, RemoteWitness, Witnessing
from chassis.process import running
from testkit.nats import NatsServer
from testkit.ports import free_port, is_free

from .conftest import received
from .running import publish, status, until_acknowledged


@contextmanager
def witness(state: Path, number: int, port: int) -> Iterator[str]:
    """Run a witness of the installation in `state`; yield its URL."""
    options = ["--state", str(state / f"witness-{number}"), "--port", str(port), "--log", f"@{state / 'credentials' / 'audit_log.vkey'}"]
    process = subprocess.Popen([sys.executable, "-m", "witness", *options])
    try:
        while is_free(port) and process.poll() is None:
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a witness answer late; one that is away refuses at once."""
    monkeypatch.setattr(witnessing, "_TIMEOUT_SECONDS", 60)


async def _until(condition: Callable[[], bool], *, within: float = 180) -> None:
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - files and metrics signal nothing
            await asyncio.sleep(0.05)


async def test_two_witnesses_sign_and_their_absence_is_an_alarm_that_ends_by_itself(bus: NatsServer, admin: Client) -> None:
    """Cosigned by both; with both away records are taken and the status warns; when they are back all is cosigned again."""
    ports = [free_port(), free_port()]
    witnesses = tuple(WitnessSettings(url=f"http://127.0.0.1:{port}") for port in ports)
    settings = Settings(min_free_bytes=0, witnesses=witnesses, witness_seconds=0.1, witness_alarm_seconds=0.6)
    async with running("audit", settings, start):
        with witness(bus.state_dir, 1, ports[0]), witness(bus.state_dir, 2, ports[1]):
            await publish(admin, 1, 30)
            await until_acknowledged(admin)
            await _until(lambda: verify(settings.folder).cosigned == 30)
            await _until(lambda: len(verify(settings.folder).witnesses) == 2)
        await publish(admin, 31, 10)
        await until_acknowledged(admin)
        warned = await _until_warned(admin, warned=True)
        with witness(bus.state_dir, 1, ports[0]), witness(bus.state_dir, 2, ports[1]):
            await _until(lambda: verify(settings.folder).cosigned == 40)
            await _until_warned(admin, warned=False)

    assert warned["writable"] is True
    found = verify(settings.folder)
    assert (found.intact, found.size, len(found.witnesses)) == (True, 40, 2), found.problem
    assert len(Prover(settings.folder).checkpoint()["witness_keys"]) == 2


async def _until_warned(admin: Client, *, warned: bool) -> dict[str, object]:
    async with asyncio.timeout(180):
        while bool((value := await status(admin)).get("warn")) != warned or "warn" not in value:  # noqa: ASYNC110 - the bucket is polled
            await asyncio.sleep(0.05)
    return value


def test_a_log_that_shrinks_or_forks_gets_no_signature(folder: Path, open_ledger: Callable[..., Ledger]) -> None:
    """A witness that saw more, or something else, says so, and the log's side names it."""
    ledger = open_ledger()
    ledger.append([received(n) for n in range(1, 6)])
    note, size = ledger.publish()
    with witness(folder.parent, 1, free_port()) as url:
        remote = RemoteWitness(WitnessSettings(url=url))
        remote.cosign(note, size, lambda old, new: [])
        forged = _other_log(folder, [received(n, tenant="other") for n in range(1, 6)])
        shorter = _other_log(folder, [received(1)])

        for other, expected in ((forged, "409"), (shorter, "shrunk")):
            with pytest.raises(NotCosignedError) as refused:
                RemoteWitness(WitnessSettings(url=url)).cosign(*other, lambda old, new: [])
            assert refused.value.reason == expected


def _other_log(folder: Path, group: list[Any]) -> tuple[str, int]:
    """Return note and size of another log under the same key."""
    from audit.trust import load_signer
    from tlog.notes import Checkpoint
    from tlog.tree import CompactRange, leaf_hash

    tree, signer = CompactRange(), load_signer(folder.parent)
    for item in group:
        tree.append(leaf_hash(str(item).encode()))
    return signer.sign(Checkpoint(signer.name, tree.size, tree.root()).text()), tree.size


async def test_another_key_under_the_same_address_is_not_believed(
    bus: NatsServer, open_ledger: Callable[..., Ledger], folder: Path, tmp_path: Path
) -> None:
    """The key that a witness showed first is kept; another one in its place signs nothing that counts."""
    ledger, port = open_ledger(), free_port()
    settings = Settings(witnesses=(WitnessSettings(url=f"http://127.0.0.1:{port}"),)).model_copy(update={"state_dir": folder.parent})
    with witness(folder.parent, 1, port):
        await Witnessing(settings, ledger).send()
    first = checkpoints.last(folder / checkpoints.COSIGNED)
    ledger.append([received(1)])

    with witness(folder.parent, 2, port):
        await Witnessing(settings, ledger).send()

    assert first is not None
    assert checkpoints.last(folder / checkpoints.COSIGNED) == first
