"""The service as a process of its own, which a test can kill or starve of disk."""

import asyncio
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from nats.aio.client import Client
from nats.js.errors import KeyNotFoundError

from contracts.subjects import AUDIT
from strata.audit.v1.audit_events_pb2 import StepRecorded

SUBJECT = AUDIT.at(tenant="acme", step="route")


@contextmanager
def audit_process(file_limit: int | None = None, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the service; `file_limit` is the size in bytes that no file of it may pass."""
    command = [sys.executable, "-m", "audit"]
    environment = {**os.environ, "STRATA_AUDIT_MIN_FREE_BYTES": "0", **settings}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    if file_limit is not None:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (file_limit, resource.RLIM_INFINITY))
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def body(number: int, pad: str = "") -> bytes:
    """Return the body of a record."""
    from chassis.messaging import encode

    record = StepRecorded(record_id=f"x/{number}", tenant="acme", request_id=f"r{number % 7}", service="router", step="route")
    record.details["pad"] = pad
    return encode(AUDIT, record)


async def publish(admin: Client, first: int, count: int, pad: str = "") -> None:
    """Publish records that the stream confirms, many at a time."""
    js = admin.jetstream()
    for start in range(first, first + count, 100):
        numbers = range(start, min(start + 100, first + count))
        await asyncio.gather(*(js.publish(SUBJECT, body(n, pad), headers={"Nats-Msg-Id": f"x/{n}"}) for n in numbers))


async def status(admin: Client) -> dict[str, object]:
    """Return what audit told the gateway; empty before it did."""
    bucket = await admin.jetstream().key_value("STATUS")
    try:
        entry = await bucket.get("audit")
    except KeyNotFoundError:
        return {}
    value: dict[str, object] = json.loads(entry.value or b"{}")
    return value


async def until_status(admin: Client, *, writable: bool) -> dict[str, object]:
    """Wait until audit says so."""
    for _ in range(3600):
        if (value := await status(admin)).get("writable") is writable:
            return value
        await asyncio.sleep(0.05)
    raise TimeoutError(f"status never became {writable}: {value}")


async def until_acknowledged(admin: Client) -> None:
    """Wait until no record of the stream is unread or unacknowledged."""
    js = admin.jetstream()
    for _ in range(3600):
        # A consumer hears of a record a moment after the stream has it; what is acknowledged leaves the stream.
        stream, consumer = await js.stream_info("AUDIT"), await js.consumer_info("AUDIT", "audit-writer")
        if not stream.state.messages and not consumer.num_pending and not consumer.num_ack_pending:
            return
        await asyncio.sleep(0.05)
    raise TimeoutError(consumer)


async def until_lease_short(admin: Client, seconds: float = 2) -> None:
    """Let what a killed reader held come again sooner than in production."""
    js = admin.jetstream()
    config = (await js.consumer_info("AUDIT", "audit-writer")).config
    config.ack_wait = seconds
    await js.add_consumer("AUDIT", config)
