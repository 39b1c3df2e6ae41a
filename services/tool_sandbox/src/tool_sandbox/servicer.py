"""Answers gRPC calls, and leaves an audit record of each call before it answers."""

import time

from prometheus_client import Counter

from chassis.errors import ServiceError
from chassis.messaging import Bus
from chassis.rpc import Context
from chassis.stops import StoppedError, Stops
from contracts.subjects import AUDIT, InvalidTokenError
from strata.audit.v1.audit_events_pb2 import StepRecorded
from strata.tool_sandbox.v1.tools_service_pb2 import InvokeRequest, InvokeResponse, ListToolsRequest, ListToolsResponse
from strata.tool_sandbox.v1.tools_service_pb2_grpc import ToolsServiceServicer
from tool_sandbox import wire
from tool_sandbox.databases import Outcome
from tool_sandbox.declarations import Tool
from tool_sandbox.failures import ToolArgumentsError, ToolNotAllowedError, ToolUnknownError
from tool_sandbox.sandbox import Sandbox

CALLS = Counter("strata_tool_calls_total", "Calls of tools.", ["domain", "tool", "outcome"])
_REFUSALS = (ToolUnknownError, ToolNotAllowedError, ToolArgumentsError, StoppedError)
# Kept for the audit record, which a call that ran out of time needs as well.
_RESERVE_SECONDS = 0.05


class ToolsServicer(ToolsServiceServicer):
    """The contract over one sandbox."""

    def __init__(self, sandbox: Sandbox, bus: Bus, stops: Stops) -> None:
        self._sandbox, self._bus, self._stops = sandbox, bus, stops

    async def Invoke(self, request: InvokeRequest, context: Context) -> InvokeResponse:  # noqa: N802 - the name in the contract
        """Run one tool; a refusal and a failure are recorded like a success."""
        started = time.perf_counter()
        try:
            tool, outcome = await self._run(request, context)
        except ServiceError as error:
            verdict = "rejected" if isinstance(error, _REFUSALS) else "failed"
            await self._record(request, verdict, started, code=error.code, message=str(error))
            raise
        await self._record(
            request, "succeeded", started,
            version=tool.version, rows=len(outcome.rows), changed=outcome.changed, truncated=outcome.truncated, replayed=outcome.replayed,
        )  # fmt: skip
        return wire.to_response(tool, outcome, milliseconds=_since(started))

    async def ListTools(self, request: ListToolsRequest, _: Context) -> ListToolsResponse:  # noqa: N802 - the name in the contract
        """Return the tools that the caller's role may use."""
        tools = self._sandbox.visible(request.caller.role, request.domain)
        return ListToolsResponse(tools=[wire.to_description(tool) for tool in tools])

    async def _run(self, request: InvokeRequest, context: Context) -> tuple[Tool, Outcome]:
        call = wire.to_call(request)
        tool = self._sandbox.admit(call)
        # A tool that runs already is let finish, so that what it did is on record; its result goes nowhere.
        self._stops.check(tenant=request.caller.tenant, tool=request.tool)
        seconds = (context.time_remaining() or tool.timeout_seconds) - _RESERVE_SECONDS
        return tool, await self._sandbox.run(call, tool, seconds=max(seconds, 0.001))

    async def _record(self, request: InvokeRequest, outcome: str, started: float, *, code: str = "", **details: str | int | bool) -> None:
        known = outcome != "rejected"
        CALLS.labels(domain=request.domain if known else "", tool=request.tool if known else "", outcome=outcome).inc()
        record = wire.to_record(request, outcome=outcome, code=code, milliseconds=_since(started), **details)
        await self._publish(record)

    async def _publish(self, record: StepRecorded) -> None:
        try:
            subject = AUDIT.at(tenant=record.tenant, step=record.step)
        except InvalidTokenError as error:
            raise ToolArgumentsError(str(error), code="invalid_request") from error
        await self._bus.publish(AUDIT, subject, record, event_id=record.record_id, about=record.request_id)


def _since(started: float) -> float:
    return (time.perf_counter() - started) * 1000
