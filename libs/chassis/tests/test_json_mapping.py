"""JSON bodies are those of protobuf's own mapping."""

import json

import pytest
from google.protobuf import json_format
from google.protobuf.message import Message

from chassis.json_mapping import to_json_bytes
from strata.audit.v1.audit_events_pb2 import StepRecorded
from strata.gateway.v1.gateway_events_pb2 import RequestAdmitted, Sampling, ToolCall
from strata.guardrail.v1.guardrail_service_pb2 import DECISION_BLOCK, CheckOutputRequest, Release, Verdict
from strata.ingestor.v1.ingestor_events_pb2 import KnowledgeChanged
from strata.orchestrator.v1.orchestrator_events_pb2 import Citation, Completion, ResponseReleased, StepUsage


def _record() -> StepRecorded:
    record = StepRecorded(record_id="r/ä/1", attempt=3, duration_ms=1.25)
    record.started_at.FromJsonString("2026-01-02T03:04:05.678Z")
    record.details.update({"a": [1, 2.5, None, True, {"b": "c", "d": []}], "e": {}, "f": "", "g": -1e300})
    return record


def _released() -> ResponseReleased:
    completion = Completion(confidence=0.5, citations=[Citation(id="1", quote="ü\n")], steps=[StepUsage(step_id="s", latency_ms=2.0)])
    completion.latency_ms["total"] = 12.5
    calls = [ToolCall(id="a", arguments_json='{"x": 1}')]
    return ResponseReleased(release=Release(claims=b"\x00\xff", key_id="k", text="t", tool_calls=calls), completion=completion)


def _admitted() -> RequestAdmitted:
    request = RequestAdmitted(request_id="r", stream=True, sampling=Sampling(temperature=0.0, seed=-(2**60)), filters={"a": "b"})
    request.as_of.FromSeconds(0)
    request.context.update({"vip": True})
    return request


@pytest.mark.parametrize(
    "message",
    [
        _record(),
        _released(),
        _admitted(),
        StepRecorded(),
        KnowledgeChanged(index_version=2**63),
        Verdict(decision=DECISION_BLOCK, personal_data={"EMAIL": 2}),
        Verdict(decision=77),
        CheckOutputRequest(vault=b"v", final=True),
        StepRecorded(duration_ms=float("inf")),
    ],
    ids=lambda message: message.DESCRIPTOR.name,
)
def test_a_body_is_what_protobufs_own_mapping_reads_back(message: Message) -> None:
    """What is written parses to the same message, and says the same as json_format."""
    body = to_json_bytes(message)

    assert json_format.Parse(body, type(message)()) == message
    plain = json_format.MessageToDict(message, preserving_proto_field_name=True)
    assert json_format.ParseDict(plain, type(message)()) == message
    assert set(plain) == set(json.loads(body))
