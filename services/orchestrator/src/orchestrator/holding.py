"""Answers that were made and must wait for a person: when a hard rule says so, and what is kept of them."""

from dataclasses import replace
from typing import Any

from orchestrator import citations
from orchestrator.drafts import Draft
from orchestrator.endings import evaluate_rules, review
from orchestrator.runs import Run
from orchestrator.verdicts import decision_name, scores
from orchestrator.workflows import Step
from strata.guardrail.v1.guardrail_service_pb2 import Origin, Verdict
from strata.orchestrator.v1.orchestrator_events_pb2 import HeldDraft

_CONFIDENT = 0.8


def hold(run: Run, draft: Draft, verdict: Verdict | None) -> None:
    """Keep a draft in the run's record, with what guardrail said of it, for whoever reviews the request."""
    generated = draft.generated or {}
    text = run.answer.released_text + draft.text
    held = HeldDraft(
        text=text,
        origin=draft.origin_name,
        step_id=draft.step.id if draft.step is not None else "",
        model=str(generated.get("model", "")),
        adapter=str(generated.get("adapter", "")),
        citations=citations.cited(text, draft.passages),
    )
    if verdict is not None:
        held.verdict.CopyFrom(verdict)
    run.record.held.CopyFrom(held)


async def by_rules(run: Run, step: Step, draft: Draft, verdict: Verdict) -> Draft | None:
    """Return the notice that stands in for a draft which a hard rule holds back, or None where it may leave."""
    if run.workflow.domain not in run.tools.catalogue.rules_at_release or draft.origin == Origin.ORIGIN_NOTICE or run.answer.sequence:
        return None
    rules = await evaluate_rules(run, step, domain=run.workflow.domain, facts=facts_of(run, draft, verdict))
    if not rules.escalate:
        return None
    hold(run, draft, verdict)
    end = review(rules)
    notice = replace(draft, origin=Origin.ORIGIN_NOTICE, grounded=False, schema_json="", tool_calls=(), finish_reason="stop")
    return replace(notice, text=end["text"], status=end["status"], code=end["code"], verdict=end["verdict"])


def facts_of(run: Run, draft: Draft, verdict: Verdict) -> dict[str, Any]:
    """Return what rules see of an answer that is about to leave.

    `evidence` counts what it rests on; `disagreement` is true where the router was sure and a check or the model was not.
    """
    screened = next((run.results.get(s.id) or {} for s in run.workflow.of_kind("screen") if s.id in run.results), {})
    output = scores(verdict)
    found = [item for s in run.workflow.of_kind("retrieve") for item in (run.results.get(s.id) or {}).get("items", ())]
    asked = any(run.results.get(s.id) is not None for s in run.workflow.of_kind("retrieve"))
    objected = any(check["flagged"] for check in output.values()) or draft.verdict in {"regenerate", "abstain"}
    tools = {s.id: run.results.get(s.id) for s in run.workflow.of_kind("tool") if run.results.get(s.id) is not None}
    return {
        "stage": "release",
        "route": run.route,
        "checks": {"input": screened.get("checks", {}), "output": output},
        "evidence": {
            "missing": asked and not found,
            "passages": len(found),
            "best": max((float(item.get("score", 0.0)) for item in found), default=0.0),
            "cited": len(citations.cited(draft.text, draft.passages)),
        },
        "disagreement": objected and float(run.route.get("confidence", 0.0)) >= _CONFIDENT,
        "draft": {"origin": draft.origin_name, "status": draft.status, "code": draft.code, "decision": decision_name(verdict)},
        "tools": tools,
    }
