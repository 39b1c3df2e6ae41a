"""Measures how many records per second reach the disk, through the bus and without it."""  # noqa: INP001 - a script, not a package

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from audit.head import load_signer
from audit.ledger import Ledger, Received
from audit.main import start
from audit.settings import Settings
from audit.verification import verify
from chassis.messaging import encode
from chassis.process import running
from contracts.subjects import AUDIT
from strata.audit.v1.audit_events_pb2 import StepRecorded
from testkit.nats import nats_server


def _record(number: int) -> StepRecorded:
    record = StepRecorded(record_id=f"b/{number}", tenant="acme", request_id=f"r{number // 10}", service="bench", step="route")
    record.details.update({"tier": "small", "adapter": "patient-answer@v1", "confidence": 0.93, "pad": "x" * 300})
    return record


def disk_alone(state: Path, records: int, group: int) -> dict[str, float]:
    """Append groups straight to the log."""
    folder = state / "audit"
    folder.mkdir(parents=True)
    ledger = Ledger(folder, load_signer(state), segment_bytes=64 * 1024**2, min_free_bytes=0)
    content = json.loads(encode(AUDIT, _record(0)))
    began = time.perf_counter()
    for first in range(1, records + 1, group):
        ledger.append(
            [Received(n, "2026-01-01T00:00:00.000000+00:00", {**content, "record_id": str(n)}) for n in range(first, first + group)]
        )
    wrote = time.perf_counter()
    ledger.close()
    found = verify(folder)
    verified = time.perf_counter()
    Ledger(folder, load_signer(state), segment_bytes=64 * 1024**2, min_free_bytes=0).close()
    opened = time.perf_counter()
    if not found.intact:
        raise SystemExit(found.problem)
    return {
        "append_per_second": records / (wrote - began),
        "group_ms": (wrote - began) / (records / group) * 1e3,
        "verify_per_second": records / (verified - wrote),
        "open_per_second": records / (opened - verified),
    }


async def through_the_bus(state: Path, records: int) -> dict[str, float]:
    """Fill the stream first, then time the service until nothing is unacknowledged."""
    with nats_server(state) as server:
        os.environ.update(STRATA_STATE_DIR=str(state), STRATA_PORT_OFFSET=str(server.port_offset))
        await server.declare()
        admin = await server.connect()
        js = admin.jetstream()
        subject = AUDIT.at(tenant="acme", step="route")
        for first in range(0, records, 250):
            await asyncio.gather(*(js.publish(subject, encode(AUDIT, _record(n))) for n in range(first, first + 250)))
        began = time.perf_counter()
        async with running("audit", Settings(min_free_bytes=0), start, serve_health=False):
            while True:
                consumer = await js.consumer_info("AUDIT", "audit-writer")
                if not consumer.num_pending and not consumer.num_ack_pending:
                    break
                await asyncio.sleep(0.02)
            seconds = time.perf_counter() - began
        await admin.close()
    if verify(state / "audit").size != records:
        raise SystemExit("records are missing")
    return {"service_per_second": records / seconds}


def main() -> None:
    """Print one line of JSON per measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=20_000)
    arguments = parser.parse_args()
    for group in (1, 10, 500):
        with tempfile.TemporaryDirectory() as folder:
            result = disk_alone(Path(folder), arguments.records // (20 if group == 1 else 1), group)
        sys.stdout.write(json.dumps({"what": "disk", "group": group, **{k: round(v, 2) for k, v in result.items()}}) + "\n")
    with tempfile.TemporaryDirectory() as folder:
        result = asyncio.run(through_the_bus(Path(folder), arguments.records // 4))
    sys.stdout.write(json.dumps({"what": "service", "group": 500, **{k: round(v, 2) for k, v in result.items()}}) + "\n")


if __name__ == "__main__":
    main()
