"""Decides how the request is served, and whether a person must decide instead."""

from collections.abc import Iterable
from typing import Any

from chassis import rpc
from orchestrator.endings import describe, evaluate_rules, review
from orchestrator.runs import Outcome, Run
from orchestrator.workflows import Step
from strata.router.v1.router_service_pb2 import LabelScore, RouteRequest, RouteResponse


async def route(run: Run, step: Step) -> Outcome:
    """Ask the router, set the deadline of the class, and let the domain's hard rules look at the decision."""
    domain = step.spec["domain"]
    request = RouteRequest(
        request_id=run.request.request_id,
        caller=run.request.caller,
        text=run.message,
        domain=domain,
        context=run.request.context,
        tier=run.request.tier,
        adapter=run.request.adapter,
    )
    response: RouteResponse = await rpc.call(run.tools.peers.router.Route, request, timeout=run.timeout(step))
    result = _result(response)
    _set_deadline(run, response.deadline_class)
    rules = await evaluate_rules(run, step, domain=domain, facts={"stage": "route", "route": result})
    if rules.escalate:
        result["ending"] = review(rules)
    details = {
        **{key: value for key, value in result.items() if key != "ending"},
        "classes": _scores(response.classes),
        "intents": _scores(response.intents),
        "versions": dict(response.versions),
        "rules": describe(rules),
    }
    return Outcome(result, details=details)


def _result(response: RouteResponse) -> dict[str, Any]:
    return {
        "request_class": response.request_class,
        "confidence": response.confidence,
        "intent": response.intent,
        "intent_confidence": response.intent_confidence,
        "tier": response.tier,
        "task": response.task,
        "adapter": response.adapter,
        "policy_ids": list(response.policy_ids),
        "deadline_class": response.deadline_class,
    }


def _scores(scores: Iterable[LabelScore]) -> list[dict[str, Any]]:
    return [{"label": score.label, "probability": round(score.probability, 4)} for score in list(scores)[:5]]


def _set_deadline(run: Run, deadline_class: str) -> None:
    """Shorten the deadline to that of the class; a batch request and an unknown class keep the bound they have."""
    seconds = run.workflow.deadlines_seconds.get(deadline_class)
    if seconds is not None and run.request.request_class != "batch":
        run.set_deadline(seconds)
