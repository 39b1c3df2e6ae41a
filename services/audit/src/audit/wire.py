"""Between the log's own types and the messages of the bus and of gRPC."""

import base64
import hashlib
import re
from typing import Any

import orjson
from google.protobuf import json_format
from nats.aio.msg import Msg

from audit.ledger import LoggedRecord, Received, timestamp
from audit.verification import Verification
from chassis.errors import InvalidArgumentError
from chassis.messaging import decode, to_json
from contracts.subjects import AUDIT, audit_step
from strata.audit.v1.audit_events_pb2 import StepRecorded
from strata.audit.v1.audit_service_pb2 import ChainedRecord, VerifyResponse

_STRINGS = (
    "record_id", "tenant", "request_id", "trace_id", "service", "step", "step_id", "outcome", "code", "started_at",
    "producer", "producer_sequence", "phase", "user", "session_id",
)  # fmt: skip
_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(_STRINGS, (str,)),
    "attempt": (int,),
    "duration_ms": (int, float),
    "details": (dict,),
}
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")
_WHOLE = re.compile(r"[1-9]\d{0,15}")
_MOST_ATTEMPTS = 2**32


def to_received(message: Msg) -> Received:
    """Return what to log of a message; one that nobody can read is logged as such, for nothing may be missing."""
    try:
        record = _plain(message.data) or to_json(decode(AUDIT, message.data))
        if problem := _misplaced(message.subject, record):
            record = _unreadable(message, problem)
    except (InvalidArgumentError, json_format.SerializeToJsonError) as error:
        record = _unreadable(message, str(error))
    return Received(message.metadata.sequence.stream, timestamp(message.metadata.timestamp), record)


def _plain(data: bytes) -> dict[str, Any] | None:
    """Return a record whose JSON is as services write it, at a tenth of the cost of protobuf's parser; None for any other."""
    try:
        record = orjson.loads(data)
    except ValueError:
        return None
    if not isinstance(record, dict):
        return None
    for name, value in record.items():
        allowed = _TYPES.get(name)
        if allowed is None or not isinstance(value, allowed) or isinstance(value, bool):
            return None
    if "started_at" in record and not _TIME.fullmatch(record["started_at"]):
        return None
    if "producer_sequence" in record and not _WHOLE.fullmatch(record["producer_sequence"]):
        return None
    attempt = record.get("attempt", 0)
    return record if 0 <= attempt < _MOST_ATTEMPTS else None


def _misplaced(subject: str, record: dict[str, Any]) -> str:
    """Return why a record does not belong on its subject, which alone says what its publisher may record; nothing when it does."""
    *_, tenant, step = subject.split(".")
    own = audit_step(str(record.get("step", "")), str(record.get("service", "")))
    if (record.get("tenant"), own) == (tenant, step):
        return ""
    return "its tenant, step or service is not that of its subject"


def _unreadable(message: Msg, problem: str) -> dict[str, Any]:
    tenant = message.subject.split(".")[3]
    return {
        "record_id": f"unreadable/{hashlib.sha256(message.data).hexdigest()}",
        "tenant": tenant,
        "service": "audit",
        "step": "unreadable",
        "outcome": "failed",
        "code": "invalid_request",
        "details": {"subject": message.subject, "problem": problem[:500], "body_base64": base64.b64encode(message.data).decode()},
    }


def to_chained(logged: LoggedRecord) -> ChainedRecord:
    """Return a record of the log as gRPC shows it."""
    record = json_format.ParseDict(logged.record, StepRecorded(), ignore_unknown_fields=True)
    return ChainedRecord(index=logged.index, hash=logged.hash.hex(), record=record, erased=logged.erased)


def to_verify_response(found: Verification) -> VerifyResponse:
    """Return the result of a check as gRPC shows it."""
    return VerifyResponse(
        intact=found.intact,
        size=found.size,
        head=found.head,
        first_bad_index=found.first_bad_index,
        problem=found.problem,
        cosigned=found.cosigned,
        gaps=found.gaps,
    )
