"""Runs a declared tool; the same step is the same call, however often it is tried."""

from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format

from chassis import rpc
from orchestrator.runs import Outcome, Run
from orchestrator.workflows import Step
from strata.tool_sandbox.v1.tools_service_pb2 import InvokeRequest, InvokeResponse

_CONVERTERS: Mapping[str, Any] = {"integer": int, "number": float, "boolean": lambda text: text.strip().lower() == "true"}


async def tool(run: Run, step: Step) -> Outcome:
    """Invoke the tool with what the step's arguments render to; what renders to nothing is left out."""
    name = step.spec["tool"]
    run.spend_tool_call()
    arguments = _arguments(run, step, run.tools.catalogue.tools[run.workflow.domain][name])
    request = InvokeRequest(
        request_id=run.request.request_id,
        trace_id=run.request.trace_id,
        caller=run.request.caller,
        domain=run.workflow.domain,
        tool=name,
        call_id=f"{run.request.request_id}/{step.id}",
    )
    request.arguments.update(arguments)
    details: dict[str, Any] = {"tool": name, "arguments": sorted(arguments)}
    try:
        response: InvokeResponse = await rpc.call(run.tools.peers.tools.Invoke, request, timeout=run.timeout(step))
    except BaseException:
        # The next attempt is the same call.
        run.tool_calls -= 1
        raise
    details |= {"version": response.tool_version, "rows": len(response.rows), "changed": response.changed, "replayed": response.replayed}
    result = {
        "rows": [json_format.MessageToDict(row) for row in response.rows],
        "changed": response.changed,
        "truncated": response.truncated,
        "tool": name,
        "tool_calls": 1,
    }
    return Outcome(result, details=details)


def _arguments(run: Run, step: Step, parameters: Mapping[str, Any]) -> dict[str, Any]:
    scope, properties = run.scope(), parameters.get("properties", {})
    rendered = {name: argument.render(scope).strip() for name, argument in step.arguments.items()}
    return {name: _convert(text, properties.get(name, {}).get("type")) for name, text in rendered.items() if text}


def _convert(text: str, kind: object) -> Any:
    """Return the value of a rendered argument in the type its schema declares; the sandbox refuses what does not fit."""
    try:
        return _CONVERTERS[kind](text) if isinstance(kind, str) and kind in _CONVERTERS else text
    except ValueError:
        return text
