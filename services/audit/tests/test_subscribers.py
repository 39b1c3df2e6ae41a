"""From the bus to the disk, with the real server and the service as a process that dies."""

import asyncio
import random
import resource
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.js.api import RetentionPolicy
from nats.js.errors import APIError

from audit import checkpoints, leaves
from audit.main import start
from audit.segments import lines
from audit.settings import Settings
from audit.verification import verify
from chassis.messaging import encode
from chassis.process import running
from contracts.subjects import AUDIT, audit_step
from strata.audit.v1.audit_events_pb2 import StepRecorded
from testkit.nats import NatsServer, free_port_offset, nats_server_binary
from tlog.tiles import tile_path

from .running import SUBJECT, audit_process, body, publish, until_acknowledged, until_lease_short, until_status


def _sequences(folder: Path) -> list[int]:
    return [leaves.decode(line.leaf).header["stream_sequence"] for line in lines(folder)]


async def test_a_record_is_on_the_disk_before_it_is_acknowledged(bus: NatsServer, admin: Client) -> None:
    """What the stream no longer owes is in the files, and the gateway may accept requests."""
    settings = Settings(min_free_bytes=0)
    async with running("audit", settings, start):
        await publish(admin, 1, 30)
        await until_acknowledged(admin)
        await until_status(admin, writable=True)

        found = verify(settings.folder)

    assert found.intact, found.problem
    assert sorted(_sequences(settings.folder)) == list(range(1, 31))


async def test_a_step_of_several_services_is_logged_under_the_name_of_who_may_publish_it(bus: NatsServer, admin: Client) -> None:
    """A service that records `tool` or `response` on a subject of its own cannot say there that another has done it."""
    settings = Settings(min_free_bytes=0)
    one, other = "orchestrator", "tool_sandbox"
    said = [(one, one), (one, other), (other, other), (other, one)]
    async with running("audit", settings, start):
        for number, (publisher, named) in enumerate(said):
            record = StepRecorded(record_id=f"x/{number}", tenant="acme", request_id="r1", service=named, step="tool")
            subject = AUDIT.at(tenant="acme", step=audit_step("tool", publisher))
            await admin.jetstream().publish(subject, encode(AUDIT, record))
        await until_acknowledged(admin)

    headers = [leaves.decode(line.leaf).header for line in lines(settings.folder)]
    assert [(header["step"], header["service"]) for header in headers] == [
        ("tool", "orchestrator"), ("unreadable", "audit"), ("tool", "tool_sandbox"), ("unreadable", "audit"),
    ]  # fmt: skip


async def test_what_nobody_can_read_is_logged_too(bus: NatsServer, admin: Client) -> None:
    """A body that is no record leaves a record that says so and holds it, whatever is wrong with it."""
    settings = Settings(min_free_bytes=0)
    bodies = [
        b"\xff not json",
        b'{"record_id":"\\ud800"}',
        b'{"details":{"a":1e400}}',
        b'{"attempt":true}',
        b"[]",
        b'{"details":{"a":NaN}}',
        b"{}",
        body(2).replace(b'"acme"', b'"beta"'),
        body(2).replace(b'"step":"route"', b'"step":"erasure"'),
    ]
    async with running("audit", settings, start):
        for content in bodies:
            await admin.jetstream().publish(SUBJECT, content)
        await admin.jetstream().publish(SUBJECT, body(1))
        await until_acknowledged(admin)

    headers = [leaves.decode(line.leaf).header for line in lines(settings.folder)]
    assert [(header["step"], header["tenant"]) for header in headers] == [("unreadable", "acme")] * len(bodies) + [("route", "acme")]


def _size(folder: Path) -> int:
    return verify(folder).size if (folder / checkpoints.SIGNED).exists() else 0


async def test_kill_9_loses_no_record_and_repeats_none(bus: NatsServer, admin: Client) -> None:
    """Killed at random moments under load and started again, the log has every record of the stream exactly once."""
    folder = bus.state_dir / "audit"
    await until_lease_short(admin)
    rng = random.Random(11)
    total = 500
    load = asyncio.create_task(publish(admin, 1, total, pad="x" * 300))
    for _ in range(2):
        with audit_process(STRATA_AUDIT_BATCH_SIZE="20", STRATA_AUDIT_SEGMENT_BYTES="100000"):
            size = _size(folder)
            for _ in range(400):
                await asyncio.sleep(0.05)
                if _size(folder) > size + 20:
                    break
            await asyncio.sleep(rng.random() * 0.2)
    await load
    with audit_process():
        await until_acknowledged(admin)

    found = verify(folder)

    assert found.intact, found.problem
    assert sorted(_sequences(folder)) == list(range(1, total + 1))


async def test_a_full_disk_is_reported_and_survived(bus: NatsServer, admin: Client) -> None:
    """When no byte can be written the gateway is told, nothing is acknowledged; with room again all is written."""
    folder = bus.state_dir / "audit"
    with audit_process(file_limit=200_000) as process:
        await publish(admin, 1, 10)
        await until_acknowledged(admin)
        await publish(admin, 11, 60, pad="y" * 8_000)
        full = await until_status(admin, writable=False)
        consumer = await admin.jetstream().consumer_info("AUDIT", "audit-writer")
        meanwhile = verify(folder)

        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await until_status(admin, writable=True)
        await until_acknowledged(admin)

    assert full["reason"]
    assert consumer.num_ack_pending + consumer.num_pending >= 1
    assert meanwhile.intact, meanwhile.problem
    found = verify(folder)
    assert (found.intact, found.size) == (True, 70)


async def test_the_bus_may_go_away_and_come_back(bus: NatsServer, admin: Client) -> None:
    """While the bus is away nothing can be recorded; when it is back the log goes on by itself."""
    await until_lease_short(admin)
    settings = Settings(min_free_bytes=0, lease_seconds=0.6)
    async with running("audit", settings, start) as runtime:
        await publish(admin, 1, 20)
        await until_acknowledged(admin)
        bus.kill()
        async with asyncio.timeout(180):
            while runtime.health.report()[0]:  # noqa: ASYNC110 - health signals nothing
                await asyncio.sleep(0.02)
        await asyncio.sleep(1)
        bus.start()
        again = await bus.connect()
        await publish(again, 21, 20)
        await until_acknowledged(again)
        await again.close()

    found = verify(settings.folder)
    assert (found.intact, found.size) == (True, 40), found.problem


async def test_a_store_of_keys_that_is_down_stops_recording_until_it_is_back(bus: NatsServer, admin: Client) -> None:
    """What cannot be sealed is not written; the gateway is told, nothing is acknowledged, and all of it is written afterwards."""
    settings = Settings(min_free_bytes=0)
    async with running("audit", settings, start):
        await publish(admin, 1, 7)
        await until_acknowledged(admin)
        with closing(sqlite3.connect(settings.keys_file)) as other:
            other.execute("BEGIN IMMEDIATE")
            await admin.jetstream().publish(SUBJECT, body(8).replace(b'"r1"', b'"new"'))
            value = await until_status(admin, writable=False)
            size = verify(settings.folder).size
        await until_status(admin, writable=True)
        await until_acknowledged(admin)

    assert "keys" in str(value["reason"])
    assert (size, verify(settings.folder).size) == (7, 8)


async def test_a_bus_that_does_not_sync_is_refused_unless_allowed(bus: NatsServer, admin: Client) -> None:
    """Nothing counts as recorded on a bus that may lose it; the operator can say otherwise."""
    bus.kill()
    configuration = bus.state_dir / "nats.conf"
    relaxed = configuration.read_text().replace('"sync_interval": "always"', '"sync_interval": "10s"')
    assert relaxed != configuration.read_text()
    configuration.write_text(relaxed)
    with (bus.state_dir / "nats.log").open("ab") as log:
        command = [nats_server_binary(), "-c", str(configuration)]
        bus.process = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: ASYNC220 - it returns at once
    # The client of before may not know yet that its server is gone.
    again = await bus.connect()
    async with running("audit", Settings(min_free_bytes=0), start):
        value = await until_status(again, writable=False)
    async with running("audit", Settings(min_free_bytes=0, allow_unsynced_bus=True), start):
        await until_status(again, writable=True)
    await again.close()

    assert "sync_interval" in str(value["reason"])


async def test_a_nearly_full_disk_is_reported_before_the_first_record(bus: NatsServer, admin: Client) -> None:
    """The gateway learns that requests cannot be recorded while nothing is waiting."""
    async with running("audit", Settings(min_free_bytes=2**60), start) as runtime:
        value = await until_status(admin, writable=False)

        assert not runtime.health.report()[0]
    assert "bytes are free" in str(value["reason"])


async def _bound(admin: Client, max_bytes: int) -> None:
    config = (await admin.jetstream().stream_info("AUDIT")).config
    await admin.jetstream().update_stream(config.evolve(max_bytes=max_bytes))


async def test_a_full_stream_empties_by_itself(bus: NatsServer, admin: Client) -> None:
    """The bus refuses what has no room; once the log has what was waiting, several times as much goes through, and nothing stays."""
    await _bound(admin, 60_000)
    js, taken = admin.jetstream(), 26
    await publish(admin, 1, taken, pad="x" * 2_000)
    with pytest.raises(APIError, match="maximum bytes"):
        await publish(admin, taken + 1, 2, pad="x" * 2_000)
    taken = (await js.stream_info("AUDIT")).state.messages
    settings = Settings(min_free_bytes=0)
    async with running("audit", settings, start):
        for first in (taken + 1, taken + 21, taken + 41, taken + 61):
            await until_acknowledged(admin)
            await publish(admin, first, 20, pad="x" * 2_000)
        await until_acknowledged(admin)
        await until_status(admin, writable=True)

    assert (await js.stream_info("AUDIT")).state.messages == 0
    assert verify(settings.folder).size == taken + 80


async def test_requests_are_refused_before_the_stream_is_full(bus: NatsServer, admin: Client) -> None:
    """At four fifths of its bound the gateway is told, while there is room for what was admitted; so it is when nobody reads the stream."""
    await _bound(admin, 60_000)
    js = admin.jetstream()
    await js.pull_subscribe("strata.v1.audit.*.*", durable="slow", stream="AUDIT")
    async with running("audit", Settings(min_free_bytes=0), start):
        await publish(admin, 1, 22, pad="x" * 2_000)
        value = await until_status(admin, writable=False)
        await publish(admin, 23, 1, pad="x" * 2_000)
        await js.delete_consumer("AUDIT", "slow")
        await until_status(admin, writable=True)

        await js.delete_consumer("AUDIT", "audit-writer")
        unread = await until_status(admin, writable=False)
        await bus.declare()
        await publish(admin, 24, 1)
        await until_status(admin, writable=True)
        await until_acknowledged(admin)

    assert "not logged yet" in str(value["reason"])
    assert "nobody reads" in str(unread["reason"])


async def test_a_stream_of_an_earlier_installation_lets_go_of_what_is_logged(bus: NatsServer, admin: Client) -> None:
    """Records that were acknowledged leave when the streams are declared again; what nobody has logged yet stays."""
    js = admin.jetstream()
    config = (await js.stream_info("AUDIT")).config
    await js.update_stream(config.evolve(retention=RetentionPolicy.LIMITS))
    await publish(admin, 1, 7)
    subscription = await js.pull_subscribe_bind(consumer="audit-writer", stream="AUDIT")
    for message in await subscription.fetch(5, timeout=180):
        await message.ack_sync()
    kept = (await js.stream_info("AUDIT")).state.messages

    await bus.declare()

    state = (await js.stream_info("AUDIT")).state
    assert (kept, state.messages, state.first_seq) == (7, 2, 6)


async def test_a_second_writer_waits_and_takes_over(bus: NatsServer, admin: Client) -> None:
    """Two processes never write one log; the second begins when the first is killed."""
    folder = bus.state_dir / "audit"
    await until_lease_short(admin)
    with audit_process() as first:
        await publish(admin, 1, 50)
        await until_acknowledged(admin)
        elsewhere = {"STRATA_PORT_OFFSET": free_port_offset(), "nats": {"url": bus.url}}
        async with running("audit", Settings(min_free_bytes=0, **elsewhere), start) as second:
            await asyncio.sleep(0.3)
            assert not second.health.report()[0]
            first.kill()
            await publish(admin, 51, 50)
            await until_acknowledged(admin)

    found = verify(folder)

    assert (found.intact, found.size) == (True, 100)


async def test_a_damaged_log_refuses_records(bus: NatsServer, admin: Client) -> None:
    """The service says that the log was changed, writes nothing, and keeps what arrives in the stream."""
    folder = bus.state_dir / "audit"
    with audit_process():
        await publish(admin, 1, 5)
        await until_acknowledged(admin)
        async with asyncio.timeout(180):
            # From its tile, which is written with the published checkpoint, a record is named.
            while not (folder / tile_path(0, 0, 5)).exists():  # noqa: ASYNC110 - files signal nothing
                await asyncio.sleep(0.05)
    segment = folder / f"{0:020d}.jsonl"
    segment.write_bytes(segment.read_bytes().replace(b'"x/3"', b'"x/8"'))
    changed = segment.read_bytes()

    with audit_process():
        value = await until_status(admin, writable=False)
        await publish(admin, 6, 1)
        await asyncio.sleep(0.5)

    assert "record 2" in str(value["reason"])
    assert segment.read_bytes() == changed
