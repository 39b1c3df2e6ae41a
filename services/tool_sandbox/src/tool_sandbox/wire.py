"""Translates between the contract's messages and the domain's values."""

import json
from typing import Any

from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct

from strata.audit.v1.audit_events_pb2 import StepRecorded
from strata.tool_sandbox.v1.tools_service_pb2 import InvokeRequest, InvokeResponse, ToolDescription
from tool_sandbox.databases import Outcome, digest
from tool_sandbox.declarations import Tool
from tool_sandbox.sandbox import Call


def to_call(request: InvokeRequest) -> Call:
    """Return the call of a request."""
    return Call(
        tenant=request.caller.tenant,
        role=request.caller.role,
        domain=request.domain,
        tool=request.tool,
        arguments=_whole_numbers(json_format.MessageToDict(request.arguments)),
        call_id=request.call_id,
    )


def _whole_numbers(value: Any) -> Any:
    """Return the value with 3.0 as 3: a protobuf Struct knows no integers, but SQL and JSON Schema do."""
    if isinstance(value, dict):
        return {key: _whole_numbers(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_whole_numbers(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _struct(content: dict[str, Any]) -> Struct:
    struct = Struct()
    struct.update(content)
    return struct


def to_response(tool: Tool, outcome: Outcome, *, milliseconds: float) -> InvokeResponse:
    """Return the response to a call that ran."""
    return InvokeResponse(
        rows=[_struct(row) for row in outcome.rows],
        changed=outcome.changed,
        truncated=outcome.truncated,
        replayed=outcome.replayed,
        tool_version=tool.version,
        latency_ms=milliseconds,
    )


def to_description(tool: Tool) -> ToolDescription:
    """Return what a role that may use the tool is told about it."""
    return ToolDescription(
        domain=tool.domain,
        name=tool.name,
        description=tool.description,
        parameters_json=json.dumps(tool.parameters),
        version=tool.version,
        read_only=tool.read_only,
    )


def to_record(request: InvokeRequest, *, outcome: str, code: str, milliseconds: float, **details: Any) -> StepRecorded:
    """Return the audit record of a call; arguments are named and digested, never quoted."""
    arguments = _whole_numbers(json_format.MessageToDict(request.arguments))
    record = StepRecorded(
        record_id=f"tool_sandbox:{request.caller.tenant}:{request.call_id}:{outcome}{':' + code if code else ''}",
        tenant=request.caller.tenant,
        request_id=request.request_id,
        trace_id=request.trace_id,
        service="tool_sandbox",
        step="tool",
        step_id=request.call_id.rpartition("/")[2],
        attempt=1,
        outcome=outcome,
        code=code,
        duration_ms=milliseconds,
        user=request.caller.user,
        details=_struct(
            {
                "domain": request.domain,
                "tool": request.tool,
                "role": request.caller.role,
                "key_id": request.caller.key_id,
                "arguments": sorted(arguments),
                "arguments_sha256": digest(arguments),
                **details,
            }
        ),
    )
    record.started_at.GetCurrentTime()
    return record


def to_attempt(request: InvokeRequest, *, version: str) -> StepRecorded:
    """Return the record that a call with effects is about to run."""
    record = to_record(request, outcome="unknown", code="", milliseconds=0.0, version=version)
    record.record_id, record.phase = f"tool_sandbox:{request.caller.tenant}:{request.call_id}:attempted", "attempted"
    return record


def to_unresolved(attempted: StepRecorded) -> StepRecorded:
    """Return the record that nobody knows what became of an attempt, for its process has ended."""
    record = StepRecorded()
    record.CopyFrom(attempted)
    record.record_id, record.phase = f"{attempted.record_id.removesuffix(':attempted')}:unresolved", "unknown"
    record.producer, record.producer_sequence = "", 0
    record.details["reason"] = "the process ended before the outcome was on record"
    return record
