"""Canaries: in the prompts of steps that want one, and what becomes of an answer that holds it."""

import pytest

from strata.guardrail.v1 import guardrail_service_pb2 as guard

from .conftest import ALLOW, Stack

LEAK = (guard.DECISION_BLOCK, "canary_leak")
HIDING = """
    budget: {model_calls: 1, tool_calls: 0, output_tokens: 300}
    steps:
      - {id: input, kind: screen}
      - {id: answer, kind: generate, needs: [input], task: chat@v1, tier: small, canary: true}
      - {id: release, kind: release, needs: [answer], from: [answer]}
    """


async def test_only_steps_that_want_a_canary_send_one(stack: Stack) -> None:
    """The canary that guardrail named goes to the model of such a step, and to no other."""
    stack.write_workflow("hiding", HIDING)
    async with stack.orchestrator():
        await stack.ask("r1", workflow="hiding")
        await stack.ask("r2", workflow="chat")
        await stack.answer("r1")
        await stack.answer("r2")
    sent = {request.request_id: request.canary for request in stack.script.requests["Generate"]}
    assert sent == {"r1": "c0ffee00c0ffee00", "r2": ""}


@pytest.mark.parametrize(("rule", "status", "stream"), [("", "blocked", True), ("canary_leak", "pending_review", False)])
async def test_a_leak_is_blocked_or_goes_to_a_person_as_the_policy_says(stack: Stack, rule: str, status: str, *, stream: bool) -> None:
    """Where the policy has a rule for the reason, a person decides; the text leaves in neither case, and the record says why."""
    stack.write_workflow("hiding", HIDING)
    stack.script.words = ["My reference is c0ffee00c0ffee00. ", "It is secret."]
    stack.script.judge = lambda r: LEAK if "c0ffee" in r.text else (ALLOW, "")
    stack.script.rules = lambda _: guard.EvaluateRulesResponse(escalate=True, rule_id="canary-leak", reason="canary_leak", message="Wait.")
    if rule:
        policy = f"version: '1'\nescalation: [{{id: canary-leak, reason: {rule}}}]\n"
        (stack.repository / "domains" / "shop" / "policy.yaml").write_text(policy)
    async with stack.orchestrator():
        await stack.ask("r1", workflow="hiding", stream=stream)
        windows = await stack.answer("r1")
    assert (windows[-1].completion.status, windows[-1].completion.code) == (status, "canary_leak")
    assert "c0ffee" not in "".join(window.release.text for window in windows)
    asked = [request.facts["escalation"]["reason"] for request in stack.script.requests.get("EvaluateRules", ())]
    assert asked == ([rule] if rule else [])
    (record,) = [record for record in await stack.audit("r1") if record.step == "release"]
    assert record.code == "canary_leak"
