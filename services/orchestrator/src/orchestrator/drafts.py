"""A text that wants to leave, and guardrail's last look at it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chassis import rpc
from orchestrator import citations
from orchestrator.runs import Run
from orchestrator.verdicts import decision_name
from orchestrator.workflows import Step
from strata.gateway.v1.gateway_events_pb2 import ToolCall
from strata.guardrail.v1.guardrail_service_pb2 import CheckOutputRequest, CheckOutputResponse, Decision, Origin, Verdict
from strata.orchestrator.v1.orchestrator_events_pb2 import Completion

_MAY_LEAVE = frozenset({Decision.DECISION_ALLOW, Decision.DECISION_REDACT})


@dataclass(frozen=True)
class Draft:
    """What is to be released as the rest of an answer."""

    text: str
    origin: "Origin.ValueType"
    status: str = "completed"
    code: str = ""
    # Decision that led to it; empty takes that of its own check.
    verdict: str = ""
    passages: Sequence[citations.Numbered] = ()
    grounded: bool = False
    schema_json: str = ""
    tool_calls: Sequence[ToolCall] = ()
    finish_reason: str = "stop"
    # The generate step it came from, and that step's result; None for texts without a model.
    step: Step | None = None
    generated: Mapping[str, Any] | None = None

    @property
    def origin_name(self) -> str:
        """How the text was made, as clients see it."""
        return Origin.Name(self.origin).removeprefix("ORIGIN_").lower()


async def check(
    run: Run,
    draft: Draft,
    *,
    text: str,
    final: bool,
    timeout: float,  # noqa: ASYNC109 - for rpc
    completion: Completion | None = None,
) -> CheckOutputResponse:
    """Let guardrail check and sign the next window of a draft, the last one with the completion."""
    request = CheckOutputRequest(
        request_id=run.request.request_id,
        trace_id=run.request.trace_id,
        caller=run.request.caller,
        sequence=run.answer.sequence,
        final=final,
        text=text,
        released_text=run.answer.released_text,
        origin=draft.origin,
        passages=citations.to_passages(draft.passages),
        require_grounding=draft.grounded,
        vault=run.record.vault,
        schema_json=draft.schema_json,
        tool_calls=draft.tool_calls if final else (),
        status=draft.status,
        **_language(run, draft),
        completion=completion.SerializeToString() if completion is not None else b"",
    )
    response: CheckOutputResponse = await rpc.call(run.tools.peers.guardrail.CheckOutput, request, timeout=timeout)
    return response


def _language(run: Run, draft: Draft) -> dict[str, Any]:
    """Return which language a model's text must have, and what follows where it has another, as the step declares it."""
    spec = draft.step.spec if draft.step is not None else {}
    declared = spec.get("language", "")
    expected = run.language if declared == "request" else declared
    action = spec.get("on_language", "report")
    decision = Decision.DECISION_ALLOW if action == "report" else Decision.Value(f"DECISION_{action.upper()}")
    return {"language": expected, "language_decision": decision} if expected else {}


def may_leave(response: CheckOutputResponse) -> bool:
    """Return whether guardrail signed the window."""
    return response.verdict.decision in _MAY_LEAVE and response.HasField("release")


def rejection(run: Run, verdict: Verdict) -> dict[str, str]:
    """Return what a verdict demands; what is blocked for a reason that the domain's policy names goes to a person."""
    decision, code = decision_name(verdict), verdict.code
    if decision == "block" and code in run.tools.catalogue.reviewed_codes.get(run.workflow.domain, ()):
        decision = "escalate"
    return {"decision": decision, "code": code}
