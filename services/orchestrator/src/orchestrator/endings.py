"""How a step ends a run early: a notice that the release then tells the client."""

from collections.abc import Mapping
from typing import Any

from chassis import rpc
from orchestrator import notices
from orchestrator.runs import Run
from orchestrator.workflows import Step
from strata.guardrail.v1.guardrail_service_pb2 import EvaluateRulesRequest, EvaluateRulesResponse

# They say that a request is large or personal, not that it is an attack.
_NO_RISK = frozenset({"size", "personal_data"})


def ending(text: str, *, status: str, code: str, verdict: str) -> dict[str, str]:
    """Return a notice as a step's result carries it."""
    return {"text": text, "status": status, "code": code, "verdict": verdict}


def review(rules: EvaluateRulesResponse, *, reason: str = "") -> dict[str, str]:
    """Return the notice that a person will decide."""
    return ending(
        rules.message or notices.PENDING_REVIEW, status="pending_review", code=rules.reason or reason or "review", verdict="escalate"
    )


async def evaluate_rules(run: Run, step: Step, *, domain: str, facts: Mapping[str, Any]) -> EvaluateRulesResponse:
    """Ask guardrail whether a person must decide; it publishes the escalation itself.

    Beside `facts` rules see `context`, `checks` by stage, and `risk.score`, the worst score of the checks that look for attacks.
    """
    screened = next((run.results.get(s.id) or {} for s in run.workflow.of_kind("screen") if s.id in run.results), {})
    checks = {"input": screened.get("checks", {}), "output": {}}
    risk = max((found["score"] for name, found in checks["input"].items() if name not in _NO_RISK), default=0.0)
    request = EvaluateRulesRequest(
        request_id=run.request.request_id, trace_id=run.request.trace_id, caller=run.request.caller, domain=domain
    )
    request.facts.update({"context": run.context, "checks": checks, "risk": {"score": risk}, **facts})
    response: EvaluateRulesResponse = await rpc.call(run.tools.peers.guardrail.EvaluateRules, request, timeout=run.timeout(step))
    return response


def describe(rules: EvaluateRulesResponse) -> dict[str, Any]:
    """Return what the audit keeps of the rules' outcome."""
    if not rules.escalate:
        return {"escalate": False}
    return {
        "escalate": True,
        "rule": rules.rule_id,
        "rule_version": rules.rule_version,
        "reason": rules.reason,
        "severity": rules.severity,
        "deadline_seconds": rules.deadline_seconds,
    }
