"""Guardrail's verdicts in words."""

from typing import Any

from strata.guardrail.v1.guardrail_service_pb2 import Decision, Verdict


def decision_name(verdict: Verdict) -> str:
    """Return the decision as clients see it, such as `allow`."""
    return Decision.Name(verdict.decision).removeprefix("DECISION_").lower()


def scores(verdict: Verdict) -> dict[str, dict[str, Any]]:
    """Return what hard rules see of a verdict: each check's score and whether it objects."""
    return {check.name: {"score": check.score, "flagged": check.flagged} for check in verdict.checks}


def describe(verdict: Verdict) -> dict[str, Any]:
    """Return what the audit keeps of a verdict: each check with its version and score."""
    return {
        "decision": decision_name(verdict),
        "code": verdict.code,
        "personal_data": dict(verdict.personal_data),
        "checks": [
            {"name": c.name, "version": c.version, "score": round(c.score, 4), "threshold": c.threshold, "flagged": c.flagged}
            | ({"error": c.error} if c.error else {})
            for c in verdict.checks
        ],
    }
