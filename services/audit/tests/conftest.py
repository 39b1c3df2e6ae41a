"""A log to write to and records to write."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from audit.head import load_signer
from audit.ledger import Ledger, Received


def received(sequence: int, *, request: str = "r1", tenant: str = "acme", pad: str = "") -> Received:
    """Return the record that the stream holds at `sequence`."""
    record = {
        "record_id": f"{request}/{sequence}",
        "tenant": tenant,
        "request_id": request,
        "trace_id": f"{request}-trace",
        "service": "router",
        "step": "route",
        "outcome": "succeeded",
        "duration_ms": 1.5,
        "details": {"note": f"é{pad}"},
    }
    return Received(sequence, f"2026-11-21T08:00:{sequence % 60:02d}.000000+00:00", record)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a log inside of a state folder."""
    path = tmp_path / "state" / "audit"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def open_ledger(folder: Path) -> Iterator[Callable[..., Ledger]]:
    """Opens the log as a start of the service does."""
    opened: list[Ledger] = []

    def _open(segment_bytes: int = 2_000, min_free_bytes: int = 0) -> Ledger:
        opened.append(Ledger(folder, load_signer(folder.parent), segment_bytes=segment_bytes, min_free_bytes=min_free_bytes))
        return opened[-1]

    yield _open
    for ledger in opened:
        ledger.close()
