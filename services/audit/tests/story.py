"""A request as the services put it on record, told of a user."""

from typing import Any

from audit.ledger import Received

from .conftest import received


def records(first: int, *, request: str, user: str, text_sha256: str, tenant: str = "acme") -> list[Received]:
    """Return the records of one request, from position `first` of the stream on."""
    document = {"document": "nih/aspirin", "version": "2026-01", "sha256": "d" * 64, "collection": "nih-answers"}
    steps: list[tuple[str, dict[str, Any]]] = [
        ("request", {"user": user, "details": {"key_id": "k-ann"}}),
        ("retrieve", {"user": user, "details": {"passages": [document]}}),
        ("generate", {"details": {"adapter": "patient-answer@v1"}}),
        ("release", {"user": user, "details": {"citations": [document], "checks": [{"decision": "allow", "code": ""}]}}),
        ("response", {"service": "gateway", "user": user, "details": {"text_sha256": text_sha256, "key_id": "k-ann"}}),
    ]
    return [
        received(first + number, request=request, tenant=tenant, step=step, record_id=f"{request}/{step}", **fields)
        for number, (step, fields) in enumerate(steps)
    ]
