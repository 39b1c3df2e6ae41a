"""The first step: nothing later sees what has not been screened."""

from chassis import rpc
from orchestrator import notices
from orchestrator.endings import ending, evaluate_rules, review
from orchestrator.runs import Outcome, Run
from orchestrator.verdicts import decision_name, describe, scores
from orchestrator.workflows import Step
from strata.guardrail.v1.guardrail_service_pb2 import CheckInputRequest, CheckInputResponse, Decision


async def screen(run: Run, step: Step) -> Outcome:
    """Let guardrail check the conversation; a refusal ends the run with a notice, what a person must see with an escalation."""
    request = CheckInputRequest(
        request_id=run.request.request_id,
        trace_id=run.request.trace_id,
        caller=run.request.caller,
        messages=run.request.messages,
        session_id=run.request.session_id,
        domain=run.workflow.domain,
    )
    response: CheckInputResponse = await rpc.call(run.tools.peers.guardrail.CheckInput, request, timeout=run.timeout(step))
    verdict = response.verdict
    result: dict[str, object] = {
        "decision": decision_name(verdict),
        "code": verdict.code,
        "personal_data": dict(verdict.personal_data),
        "checks": scores(verdict),
        "canary": response.canary,
        "language": response.language,
    }
    clearance: dict[str, object] = {}
    if response.HasField("clearance"):
        granted = response.clearance
        clearance = {
            "sensitivity": granted.sensitivity,
            "deployments": list(granted.deployments),
            "policy_ids": list(granted.policy_ids),
        }
        result["clearance"] = clearance
    del run.record.screened_messages[:]
    run.record.screened_messages.extend(response.messages)
    run.record.vault = response.vault
    if verdict.decision == Decision.DECISION_ESCALATE:
        # A person must decide even where no rule names what the check has found.
        facts = {"stage": "screen", "escalation": {"step": step.id, "reason": verdict.code or "review"}}
        result["ending"] = review(await evaluate_rules(run, step, domain=run.workflow.domain, facts=facts), reason=verdict.code)
    elif verdict.decision not in {Decision.DECISION_ALLOW, Decision.DECISION_REDACT}:
        code = verdict.code or "content_policy_violation"
        result["ending"] = ending(notices.BLOCKED_INPUT, status="blocked", code=code, verdict=decision_name(verdict))
    return Outcome(result, details={"verdict": describe(verdict), "clearance": clearance})
