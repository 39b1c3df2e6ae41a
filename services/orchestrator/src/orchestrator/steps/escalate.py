"""Hands the request to a person because the workflow says so."""

from orchestrator.endings import describe, evaluate_rules, review
from orchestrator.runs import Outcome, Run
from orchestrator.workflows import Step


async def escalate(run: Run, step: Step) -> Outcome:
    """Report the reason to guardrail, which publishes the escalation, and end the run with the notice of its rule."""
    reason = step.spec["reason"]
    facts = {"route": run.route, "escalation": {"step": step.id, "reason": reason}}
    rules = await evaluate_rules(run, step, domain=run.workflow.domain, facts=facts)
    return Outcome({"ending": review(rules, reason=reason)}, details={"reason": reason, "rules": describe(rules)})
