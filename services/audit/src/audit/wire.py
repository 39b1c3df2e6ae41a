"""Between the log's own types and the messages of the bus and of gRPC."""

import base64
import hashlib
from typing import Any

from google.protobuf import json_format
from nats.aio.msg import Msg

from audit.ledger import LoggedRecord, Received, timestamp
from audit.verification import Verification
from chassis.errors import InvalidArgumentError
from chassis.messaging import decode, to_json
from contracts.subjects import AUDIT
from strata.audit.v1.audit_events_pb2 import StepRecorded
from strata.audit.v1.audit_service_pb2 import ChainedRecord, VerifyResponse


def to_received(message: Msg) -> Received:
    """Return what to log of a message; one that nobody can read is logged as such, for nothing may be missing."""
    try:
        record = to_json(decode(AUDIT, message.data))
    except InvalidArgumentError as error:
        record = _unreadable(message, str(error))
    return Received(message.metadata.sequence.stream, timestamp(message.metadata.timestamp), record)


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
