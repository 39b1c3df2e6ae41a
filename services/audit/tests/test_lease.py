"""One writer at a time, also where no lock of the machine says so."""

import asyncio
import signal
import time
from pathlib import Path

import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.js.kv import KeyValue

from audit import leaves
from audit.lease import Lease, LeaseLostError
from audit.segments import lines
from audit.verification import verify
from testkit.nats import NatsServer

from .running import audit_process, publish, until_acknowledged, until_lease_short

SECONDS = 0.4


@pytest_asyncio.fixture
async def bucket(admin: Client) -> KeyValue:
    """The bucket of leases."""
    return await admin.jetstream().key_value("LEASES")


def _lease(bucket: KeyValue, folder: Path, host: str) -> Lease:
    return Lease(bucket, folder / "run", seconds=SECONDS, host=host)


async def test_a_silent_holder_is_succeeded_and_fenced(bus: NatsServer, bucket: KeyValue, tmp_path: Path) -> None:
    """Who does not renew loses the lease within twice its length, and may not write any more, whatever it believes."""
    first, second = _lease(bucket, tmp_path, "a"), _lease(bucket, tmp_path, "b")
    assert await first.acquire(tmp_path / "log")
    first.check()
    began = time.monotonic()
    while not await second.acquire(tmp_path / "log"):
        await asyncio.sleep(0.02)
        if time.monotonic() - began < SECONDS * 0.9:
            assert not second.epoch

    second.check()
    first._renewed = time.monotonic()
    with pytest.raises(LeaseLostError, match="taken over"):
        first.check()
    assert not await first.renew()
    assert time.monotonic() - began < 3 * SECONDS
    assert (first.epoch, second.epoch) == (1, 2)
    await first.release()
    second.check()


async def test_a_holder_that_renews_keeps_it(bus: NatsServer, bucket: KeyValue, tmp_path: Path) -> None:
    """Others wait for as long as the holder lives, and have it at once when it lets go."""
    first, second = _lease(bucket, tmp_path, "a"), _lease(bucket, tmp_path, "b")
    assert await first.acquire(tmp_path / "log")
    keeping = asyncio.create_task(first.keep())
    for _ in range(30):
        assert not await second.acquire(tmp_path / "log")
        await asyncio.sleep(SECONDS / 10)
    first.check()
    keeping.cancel()
    await first.release()

    assert await second.acquire(tmp_path / "log")
    assert second.epoch == 2


async def test_time_that_is_over_stops_the_writer_by_itself(bus: NatsServer, bucket: KeyValue, tmp_path: Path) -> None:
    """A holder that could not renew stops before anybody else may begin, with no word from outside."""
    lease = _lease(bucket, tmp_path, "a")
    assert await lease.acquire(tmp_path / "log")
    await asyncio.sleep(SECONDS * 1.05)

    with pytest.raises(LeaseLostError, match="not renewed"):
        lease.check()


async def test_a_writer_that_hangs_is_succeeded_and_cannot_harm_when_it_wakes(bus: NatsServer, admin: Client) -> None:
    """A stopped process keeps its lock and its open files; another takes over within seconds, and the log has every record once."""
    folder = bus.state_dir / "audit"
    await until_lease_short(admin)
    with audit_process(STRATA_AUDIT_LEASE_SECONDS="1", STRATA_AUDIT_HOST="a") as first:
        await publish(admin, 1, 40)
        await until_acknowledged(admin)
        load = asyncio.create_task(publish(admin, 41, 60))
        await asyncio.sleep(0.02)
        first.send_signal(signal.SIGSTOP)
        await load
        began = time.monotonic()
        elsewhere = {"STRATA_AUDIT_HOST": "b", "STRATA_PORT_OFFSET": str(bus.port_offset + 300), "STRATA_AUDIT_NATS__URL": bus.url}
        with audit_process(STRATA_AUDIT_LEASE_SECONDS="1", **elsewhere):
            while verify(folder).size == 40 and time.monotonic() - began < 20:  # noqa: ASYNC110 - files signal nothing
                await asyncio.sleep(0.1)
            first.send_signal(signal.SIGCONT)
            await publish(admin, 101, 20)
            await until_acknowledged(admin)
            await asyncio.sleep(1)

    found = verify(folder)
    assert found.intact, found.problem
    assert sorted(leaves.decode(line.leaf).header["stream_sequence"] for line in lines(folder)) == list(range(1, 121))
    epochs = [leaves.decode(line.leaf).header["epoch"] for line in lines(folder)]
    assert epochs == sorted(epochs)
    assert set(epochs) == {1, 2}
