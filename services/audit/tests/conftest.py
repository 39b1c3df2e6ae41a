"""A log to write to and records to write."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from audit.keys import KeyVault, load_master_key
from audit.ledger import Ledger, Received
from audit.trust import load_signer
from audit.view import View
from chassis.provisioning import provision_log


def received(sequence: int, *, request: str = "r1", tenant: str = "acme", pad: str = "", **fields: Any) -> Received:
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
        **fields,
    }
    return Received(sequence, f"2026-11-21T08:00:{sequence % 60:02d}.000000+00:00", record)


def new_ledger(state: Path, **options: Any) -> Ledger:
    """Open the log of a state folder as a start of the service does."""
    provision_log(state / "credentials")
    signer = load_signer(state)
    vault = KeyVault(state / "credentials" / "audit" / "keys.db", load_master_key(state / "credentials" / "audit" / "master.key"))
    view = View(state / "audit_run" / "view.db", signer.name, vault.token)
    return Ledger(state / "audit", signer, vault, view, **{"segment_bytes": 2_000, "min_free_bytes": 0, **options})


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

    def _open(**options: Any) -> Ledger:
        opened.append(new_ledger(folder.parent, **options))
        return opened[-1]

    yield _open
    for ledger in opened:
        ledger.close()
