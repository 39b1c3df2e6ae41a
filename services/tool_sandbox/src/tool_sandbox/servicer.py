"""Answers gRPC calls, and leaves an audit record of each call before it answers."""

import time
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import Counter

from chassis.errors import ServiceError
from chassis.logging import get_logger
from chassis.messaging import Bus
from chassis.rpc import Context
from chassis.stops import StoppedError, Stops
from contracts.subjects import AUDIT, InvalidTokenError
from strata.audit.v1.audit_events_pb2 import StepRecorded
from strata.tool_sandbox.v1.tools_service_pb2 import InvokeRequest, InvokeResponse, ListToolsRequest, ListToolsResponse
from strata.tool_sandbox.v1.tools_service_pb2_grpc import ToolsServiceServicer
from tool_sandbox import wire
from tool_sandbox.attempts import Attempts
from tool_sandbox.databases import Outcome
from tool_sandbox.declarations import Tool
from tool_sandbox.failures import ToolArgumentsError, ToolNotAllowedError, ToolTimeoutError, ToolUnknownError
from tool_sandbox.sandbox import Sandbox

log = get_logger("tool_sandbox")
CALLS = Counter("strata_tool_calls_total", "Calls of tools.", ["domain", "tool", "outcome"])
_REFUSALS = (ToolUnknownError, ToolNotAllowedError, ToolArgumentsError, StoppedError)
# Kept for the audit record, which a call that ran out of time needs as well.
_RESERVE_SECONDS = 0.05


@dataclass
class _Run:
    """One call, when it began, and the file of its attempt where it has effects."""

    request: InvokeRequest
    started: float
    attempt: Path | None = None


class ToolsServicer(ToolsServiceServicer):
    """The contract over one sandbox."""

    def __init__(self, sandbox: Sandbox, bus: Bus, stops: Stops, attempts: Attempts) -> None:
        self._sandbox, self._bus, self._stops, self._attempts = sandbox, bus, stops, attempts

    async def Invoke(self, request: InvokeRequest, context: Context) -> InvokeResponse:  # noqa: N802 - the name in the contract
        """Run one tool; a refusal and a failure are recorded like a success."""
        started = time.perf_counter()
        run = _Run(request, started)
        try:
            tool, outcome = await self._run(run, context)
        except ServiceError as error:
            verdict = "rejected" if isinstance(error, _REFUSALS) else "failed"
            # A write that ran out of time may have been made.
            if run.attempt is not None and isinstance(error, ToolTimeoutError):
                verdict = "unknown"
            await self._record(run, verdict, code=error.code, message=str(error))
            raise
        await self._record(
            run, "succeeded",
            version=tool.version, rows=len(outcome.rows), changed=outcome.changed, truncated=outcome.truncated, replayed=outcome.replayed,
        )  # fmt: skip
        return wire.to_response(tool, outcome, milliseconds=_since(started))

    async def resolve(self) -> None:
        """Put on record that nobody knows what became of the attempts of processes that have ended; what is not stored stays for later."""
        for path, attempted in self._attempts.abandoned():
            try:
                await self._publish(wire.to_unresolved(attempted))
            except ServiceError as error:
                log.warning("attempt_not_resolved", record=attempted.record_id, error=str(error))
            else:
                self._attempts.end(path)

    async def ListTools(self, request: ListToolsRequest, _: Context) -> ListToolsResponse:  # noqa: N802 - the name in the contract
        """Return the tools that the caller's role may use."""
        tools = self._sandbox.visible(request.caller.role, request.domain)
        return ListToolsResponse(tools=[wire.to_description(tool) for tool in tools])

    async def _run(self, run: _Run, context: Context) -> tuple[Tool, Outcome]:
        request = run.request
        call = wire.to_call(request)
        tool = self._sandbox.admit(call)
        # A tool that runs already is let finish, so that what it did is on record; its result goes nowhere.
        self._stops.check(tenant=request.caller.tenant, tool=request.tool)
        if not tool.read_only:
            attempted = wire.to_attempt(request, version=tool.version)
            run.attempt = self._attempts.begin(attempted)
            await self._publish(attempted)
        seconds = (context.time_remaining() or tool.timeout_seconds) - _RESERVE_SECONDS
        return tool, await self._sandbox.run(call, tool, seconds=max(seconds, 0.001))

    async def _record(self, run: _Run, outcome: str, *, code: str = "", **details: str | int | bool) -> None:
        request, known = run.request, outcome != "rejected"
        CALLS.labels(domain=request.domain if known else "", tool=request.tool if known else "", outcome=outcome).inc()
        record = wire.to_record(request, outcome=outcome, code=code, milliseconds=_since(run.started), **details)
        if run.attempt is not None:
            record.phase = {"succeeded": "verified", "unknown": "unknown"}.get(outcome, "failed")
        await self._publish(record)
        if run.attempt is not None:
            self._attempts.end(run.attempt)

    async def _publish(self, record: StepRecorded) -> None:
        try:
            subject = AUDIT.at(tenant=record.tenant, step=record.step)
        except InvalidTokenError as error:
            raise ToolArgumentsError(str(error), code="invalid_request") from error
        await self._bus.publish(AUDIT, subject, record, event_id=record.record_id, about=record.request_id)


def _since(started: float) -> float:
    return (time.perf_counter() - started) * 1000
