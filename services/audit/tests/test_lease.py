"""One writer at a time, also where no lock of the machine says so."""

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.js.kv import KeyValue

from audit import lease, leaves
from audit.lease import Lease, LeaseLostError
from audit.ledger import Ledger
from audit.segments import lines
from audit.verification import verify
from testkit.nats import NatsServer, free_port_offset

from .conftest import received
from .running import audit_process, publish, until_acknowledged, until_lease_short

SECONDS = 0.4
Open = Callable[..., Ledger]


@dataclass
class Clock:
    """The time that leases go by; it passes when a test says so, however loaded the machine is."""

    now: float = 1000.0

    def monotonic(self) -> float:
        """Stand for time.monotonic."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of both sides."""
    clock = Clock()
    monkeypatch.setattr(lease, "time", clock)
    return clock


@pytest_asyncio.fixture
async def bucket(admin: Client) -> KeyValue:
    """The bucket of leases."""
    return await admin.jetstream().key_value("LEASES")


def _lease(bucket: KeyValue, folder: Path, host: str) -> Lease:
    return Lease(bucket, folder / "run", seconds=SECONDS, host=host)


async def test_a_silent_holder_is_succeeded_and_fenced(bus: NatsServer, bucket: KeyValue, clock: Clock, tmp_path: Path) -> None:
    """Who does not renew loses the lease once its length has passed, and may not write any more, whatever it believes."""
    first, second = _lease(bucket, tmp_path, "a"), _lease(bucket, tmp_path, "b")
    assert await first.acquire(tmp_path / "log")
    first.check()
    assert not await second.acquire(tmp_path / "log")
    clock.now += SECONDS * 0.9
    assert not await second.acquire(tmp_path / "log")
    assert not second.epoch
    clock.now += SECONDS * 0.2
    assert await second.acquire(tmp_path / "log")

    second.check()
    first._renewed = clock.now
    with pytest.raises(LeaseLostError, match="taken over"):
        first.check()
    assert not await first.renew()
    assert (first.epoch, second.epoch) == (1, 2)
    await first.release()
    second.check()


async def test_a_holder_that_renews_keeps_it(bus: NatsServer, bucket: KeyValue, clock: Clock, tmp_path: Path) -> None:
    """Others wait for as long as the holder lives, and have it at once when it lets go."""
    first, second = _lease(bucket, tmp_path, "a"), _lease(bucket, tmp_path, "b")
    assert await first.acquire(tmp_path / "log")
    keeping = asyncio.create_task(first.keep())
    for _ in range(4):
        assert not await second.acquire(tmp_path / "log")
        before = first._revision
        clock.now += SECONDS * 0.6
        async with asyncio.timeout(180):
            while first._revision == before:  # noqa: ASYNC110 - a renewal signals nothing
                await asyncio.sleep(0.02)
    assert not await second.acquire(tmp_path / "log")
    keeping.cancel()
    await first.release()

    assert await second.acquire(tmp_path / "log")
    assert second.epoch == 2


async def test_time_that_is_over_stops_the_writer_by_itself(bus: NatsServer, bucket: KeyValue, clock: Clock, tmp_path: Path) -> None:
    """A holder that could not renew stops before anybody else may begin, with no word from outside."""
    holder = _lease(bucket, tmp_path, "a")
    assert await holder.acquire(tmp_path / "log")
    clock.now += SECONDS * 1.05

    with pytest.raises(LeaseLostError, match="not renewed"):
        holder.check()


@pytest.mark.parametrize("place", range(1, 14))
def test_a_writer_that_hangs_anywhere_in_a_group_harms_nothing_when_it_wakes(folder: Path, open_ledger: Open, place: int) -> None:
    """Whichever of its looks at the lease comes after another process took over and wrote, that process's records stay whole."""
    begun = folder.parent / "audit_run"
    looks = 0

    def hangs() -> None:
        nonlocal looks
        looks += 1
        if looks == place:
            successor = Lease(bucket=None, folder=begun, seconds=1)  # type: ignore[arg-type]
            successor.epoch = 2
            successor._fence(folder, replace_files=True)
            later.append(open_ledger(epoch=2))
            later[0].append([received(2), received(3)])
        if looks >= place:
            raise LeaseLostError("taken over")

    def write() -> None:
        first = open_ledger(still_ours=hangs)
        first.append([received(1)])
        first.append([received(2)])
        first.publish()

    later: list[Ledger] = []
    with pytest.raises(LeaseLostError):
        write()
    later[0].append([received(4)])

    found = verify(folder)
    assert found.intact, found.problem
    written = [leaves.decode(line.leaf).header["stream_sequence"] for line in lines(folder)]
    assert sorted(set(written) | {1}) == [1, 2, 3, 4]
    assert len(written) == len(set(written))


def _epochs(folder: Path) -> list[int]:
    """Return which holder of the lease wrote each record."""
    return [leaves.decode(line.leaf).header["epoch"] for line in lines(folder) if line.is_whole]


async def _until_succeeded(folder: Path, epoch: int) -> None:
    """Wait until a later holder of the lease has written."""
    async with asyncio.timeout(180):
        while max(_epochs(folder)) <= epoch:  # noqa: ASYNC110 - files signal nothing
            await asyncio.sleep(0.1)


async def test_a_writer_that_hangs_is_succeeded_and_cannot_harm_when_it_wakes(bus: NatsServer, admin: Client) -> None:
    """A stopped process keeps its lock and its open files; another takes over, and the log has every record once."""
    folder = bus.state_dir / "audit"
    await until_lease_short(admin)
    elsewhere = {"STRATA_AUDIT_HOST": "b", "STRATA_PORT_OFFSET": str(free_port_offset()), "STRATA_AUDIT_NATS__URL": bus.url}
    with audit_process(STRATA_AUDIT_LEASE_SECONDS="1", STRATA_AUDIT_HOST="a") as first:
        await publish(admin, 1, 40)
        await until_acknowledged(admin)
        first.send_signal(signal.SIGSTOP)
        held = _epochs(folder)[-1]
        # What it had asked for before it hung is in its hands when it wakes.
        await publish(admin, 41, 60)
        with audit_process(STRATA_AUDIT_LEASE_SECONDS="1", **elsewhere):
            await _until_succeeded(folder, held)
            first.send_signal(signal.SIGCONT)
            await publish(admin, 101, 20)
            await until_acknowledged(admin)
            await asyncio.sleep(1)

    found = verify(folder)
    assert found.intact, found.problem
    assert sorted(leaves.decode(line.leaf).header["stream_sequence"] for line in lines(folder)) == list(range(1, 121))
    epochs = _epochs(folder)
    # On a loaded machine the lease may go back and forth, already before the first one hangs; each holder writes after those before it.
    assert epochs == sorted(epochs)
    assert epochs[39] == held
    assert epochs[40] > held
