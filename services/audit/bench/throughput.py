"""Measures the log: durable, signed, sealed records per second as it grows, its start, check and proofs, the way by the bus."""  # noqa: INP001

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from audit.keys import KeyVault, load_master_key
from audit.ledger import Ledger, Received
from audit.main import start
from audit.proving import Prover
from audit.settings import Settings
from audit.trust import load_signer
from audit.verification import verify
from audit.view import View
from chassis.messaging import encode
from chassis.process import running
from chassis.provisioning import provision_log
from contracts.subjects import AUDIT
from strata.audit.v1.audit_events_pb2 import StepRecorded
from testkit.nats import nats_server

# Records of one request, as a request with tools leaves them; each request has a key of its own.
_PER_REQUEST = 10
_MARKS = (10_000, 100_000, 300_000, 1_000_000)
_WINDOW = 10_000


def _record(number: int) -> StepRecorded:
    record = StepRecorded(record_id=f"b/{number}", tenant="acme", request_id=f"r{number // _PER_REQUEST}", service="bench", step="route")
    record.trace_id = f"{number // _PER_REQUEST:032x}"
    record.details.update({"tier": "small", "adapter": "patient-answer@v1", "confidence": 0.93, "pad": "x" * 300})
    return record


def _ledger(state: Path) -> Ledger:
    provision_log(state / "credentials")
    signer, credentials = load_signer(state), state / "credentials" / "audit"
    vault = KeyVault(credentials / "keys.db", load_master_key(credentials / "master.key"))
    view = View(state / "audit_run" / "view.db", signer.name)
    return Ledger(state / "audit", signer, vault, view, segment_bytes=64 * 1024**2, min_free_bytes=0)


def _groups(content: dict[str, Any], first: int, count: int, size: int) -> list[list[Received]]:
    moment, records = "2026-01-01T00:00:00.000000+00:00", []
    for number in range(first, first + count):
        request = number // _PER_REQUEST
        record = {**content, "record_id": f"b/{number}", "request_id": f"r{request}", "trace_id": f"{request:032x}"}
        records.append(Received(number, moment, record))
    return [records[at : at + size] for at in range(0, count, size)]


def disk(what: str, state: Path, records: int, group: int) -> None:
    """Append groups straight to the log; print what a record costs around each mark, and what start, check and proofs then cost."""
    ledger, content = _ledger(state), json.loads(encode(AUDIT, _record(0)))
    spent = 0.0
    for first in range(1, records + 1, _WINDOW):
        groups = _groups(content, first, min(_WINDOW, records - first + 1), group)
        began, used = time.perf_counter(), time.process_time()
        for each in groups:
            ledger.append(each)
        seconds, used = time.perf_counter() - began, time.process_time() - used
        spent += seconds
        count = sum(map(len, groups))
        done = first - 1 + count
        if done in _MARKS or done == records:
            at = {"per_second": count / seconds, "us_per_record": seconds / count * 1e6, "cpu_us_per_record": used / count * 1e6}
            _print(what, {f"at_{done}.{name}": value for name, value in at.items()})
    _print(what, {"all.per_second": records / spent})
    ledger.close()
    _print(what, _afterwards(state, records))


def _afterwards(state: Path, records: int) -> dict[str, float]:
    began = time.perf_counter()
    _ledger(state).close()
    opened = time.perf_counter()
    prover, times, sizes = Prover(state / "audit"), [], []
    for index in (0, records // 3, records // 2, records - 1):
        single = time.perf_counter()
        found = prover.prove(f"b/{index + 1}")
        times.append(time.perf_counter() - single)
        sizes.append(len(found["proof"]) * 32)
    grown = time.perf_counter()
    proof = prover.consistency(records // 3, records)["proof"]
    consistent = time.perf_counter()
    found = verify(state / "audit")
    if not found.intact or found.size != records:
        raise SystemExit(found.problem)
    checked = time.perf_counter()
    folder = state / "audit"
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {
        "open_seconds": opened - began,
        "prove_ms": median(times) * 1e3,
        "proof_bytes": max(sizes),
        "consistency_ms": (consistent - grown) * 1e3,
        "consistency_bytes": len(proof) * 32,
        "verify_per_second": records / (checked - consistent),
        "bytes_per_record": total / records,
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
    return {"per_second": records / seconds}


def _print(what: str, result: dict[str, float]) -> None:
    for name, value in result.items():
        sys.stdout.write(json.dumps({"figure": f"audit.{what}.{name}", "value": round(value, 3)}) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Print one line of JSON per figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--group", type=int, default=500)
    parser.add_argument("--bus-records", type=int, default=10_000)
    parser.add_argument("--only-growth", action="store_true", help="leave out small groups and the bus")
    arguments = parser.parse_args()
    runs = (("single", 500, 1), ("group50", 20_000, 50), (f"group{arguments.group}", arguments.records, arguments.group))
    for what, records, group in runs[-1:] if arguments.only_growth else runs:
        folder = Path(tempfile.mkdtemp(dir=os.environ.get("STRATA_BENCH_DIR")))
        try:
            disk(what, folder, records, group)
        finally:
            shutil.rmtree(folder)
    if arguments.only_growth:
        return
    with tempfile.TemporaryDirectory() as state:
        _print("service", asyncio.run(through_the_bus(Path(state), arguments.bus_records)))


if __name__ == "__main__":
    main()
