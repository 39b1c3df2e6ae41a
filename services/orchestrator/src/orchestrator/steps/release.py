"""The last step: nothing leaves but what guardrail signed, and only once."""

import hashlib
import time
from dataclasses import replace
from typing import Any

from chassis.errors import InternalError, ServiceError
from chassis.logging import get_logger
from orchestrator import citations, holding, notices
from orchestrator.completion import complete, finish
from orchestrator.drafts import Draft, check, may_leave, rejection
from orchestrator.endings import evaluate_rules, review
from orchestrator.generation import RESERVE_SECONDS, abstention, plan, produce
from orchestrator.runs import Outcome, Run
from orchestrator.verdicts import decision_name, describe
from orchestrator.workflows import Step
from strata.gateway.v1.gateway_events_pb2 import ToolCall
from strata.guardrail.v1.guardrail_service_pb2 import CheckOutputResponse, Decision, Origin
from strata.orchestrator.v1.orchestrator_events_pb2 import ResponseReleased

log = get_logger("release")


async def release(run: Run, step: Step) -> Outcome:
    """Have drafts checked until one may leave; each rejection leads to a safer one, the last to an error."""
    began = time.perf_counter()
    draft, rejected = _first(run, step)
    trail: list[dict[str, Any]] = []
    while True:
        if rejected is None:
            completion = complete(run, draft, run.answer.released_text + draft.text)
            response = await check(run, draft, text=draft.text, final=True, timeout=run.timeout(step), completion=completion)
            trail.append({"origin": draft.origin_name, **describe(response.verdict)})
            if may_leave(response):
                if (notice := await holding.by_rules(run, step, draft, response.verdict)) is None:
                    break
                draft = notice
                continue
            rejected = rejection(run, response.verdict)
            if rejected["decision"] == "escalate":
                holding.hold(run, draft, response.verdict)
        draft, rejected = await _next(run, step, draft, rejected), None
    # Readers with the permission see names restored, so the digest is that of what left.
    released = run.answer.released_text + response.release.text
    finish(run, step, completion, verdict=decision_name(response.verdict), seconds=time.perf_counter() - began)
    message = ResponseReleased(
        request_id=run.request.request_id, trace_id=run.request.trace_id, release=response.release, completion=completion
    )
    details = {
        "status": draft.status,
        "code": draft.code,
        "origin": draft.origin_name,
        "checks": trail,
        "windows": run.answer.sequence + 1,
        "text_sha256": hashlib.sha256(released.encode()).hexdigest(),
        "signing_key": response.release.key_id,
        "citations": [{"document": c.document_id, "version": c.version} for c in completion.citations],
    }
    result = {"status": draft.status, "origin": draft.origin_name, "sequence": run.answer.sequence}
    if draft.generated is not None and (origin := draft.generated.get("cached")) is not None:
        details |= {"cached": True, "cached_from": origin}
    keeps = _may_be_given_again(draft, response)

    async def leave() -> None:
        await run.answer.publish(message)
        if keeps and draft.step is not None and draft.generated is not None:
            await run.tools.cache.keep(run, plan(run, draft.step), draft.generated)

    return Outcome(result, code=draft.code, details=details, effect=leave)


def _may_be_given_again(draft: Draft, response: CheckOutputResponse) -> bool:
    """Return whether an answer left as its model first made it, complete, with nothing in it that anyone objected to."""
    made = draft.generated or {}
    plain = draft.origin == Origin.ORIGIN_MODEL and (draft.status, draft.code, draft.finish_reason) == ("completed", "", "stop")
    first = made.get("model_calls") == 1 and not draft.tool_calls
    verdict = response.verdict
    return plain and first and verdict.decision == Decision.DECISION_ALLOW and not verdict.personal_data


def _first(run: Run, step: Step) -> tuple[Draft, dict[str, str] | None]:
    """Return what the steps made of the answer, and the rejection that its stream has met already."""
    if (end := run.ending) is not None:
        _hold_what_was_made(run, step, end)
        return Draft(end["text"], Origin.ORIGIN_NOTICE, end["status"], end["code"], end["verdict"]), None
    for name in step.spec["from"]:
        result = run.results.get(name)
        if result is not None:
            return _from_result(run, run.workflow.steps[name], result), result.get("rejected")
    raise InternalError("no step made an answer")


def _hold_what_was_made(run: Run, step: Step, end: dict[str, Any]) -> None:
    """Keep the text of a model that was there before a step handed the request to a person."""
    for name in step.spec["from"] if end["status"] == "pending_review" and not run.record.HasField("held") else ():
        result, source = run.results.get(name), run.workflow.steps[name]
        if source.kind == "generate" and result and result["status"] == "completed":
            holding.hold(run, _from_result(run, source, result), None)
            return


def _from_result(run: Run, source: Step, result: dict[str, Any]) -> Draft:
    if source.kind != "generate":
        return Draft(result["text"], Origin.ORIGIN_TEMPLATE, result["status"])
    if result["status"] == "extracted":
        text = citations.extract(plan(run, source).passages)
        verdict, code = "abstain", "model_abstained"
        passages = plan(run, source).passages
        return Draft(text, Origin.ORIGIN_EXTRACT, "completed", code, verdict, passages, step=source, generated=result)
    if result["status"] == "abstained":
        generated = result if "model" in result else None
        return Draft(result["text"], Origin.ORIGIN_NOTICE, "abstained", verdict="abstain", step=source, generated=generated)
    planned = plan(run, source)
    return Draft(
        result["text"][int(result["released_chars"]) :],
        Origin.ORIGIN_MODEL,
        passages=planned.passages,
        grounded=planned.grounded,
        schema_json=planned.schema_json,
        tool_calls=[ToolCall(**call) for call in result["tool_calls_asked"]],
        finish_reason=result["finish_reason"],
        step=source,
        generated=result,
    )


async def _next(run: Run, step: Step, draft: Draft, rejected: dict[str, str]) -> Draft:
    """Return what to try after guardrail refused a draft; raise InternalError when nothing is left."""
    decision, code = rejected["decision"], rejected["code"]
    if draft.origin == Origin.ORIGIN_NOTICE:
        raise InternalError("guardrail refused a notice", code="output_blocked")
    safer = replace(draft, origin=Origin.ORIGIN_NOTICE, code=code, grounded=False, schema_json="", tool_calls=(), finish_reason="stop")
    if decision == "block":
        return replace(safer, text=_after(run, notices.BLOCKED_OUTPUT), status="blocked", verdict="block")
    if decision == "escalate":
        facts = {"stage": "release", "route": run.route, "verdict": rejected}
        # A person must decide even where no rule names what the check has found.
        facts["escalation"] = {"step": step.id, "reason": code or "review"}
        end = review(await evaluate_rules(run, step, domain=run.workflow.domain, facts=facts), reason=code)
        return replace(safer, text=_after(run, end["text"]), status=end["status"], code=end["code"], verdict="escalate")
    if decision == "regenerate" and (again := await _again(run, draft)) is not None:
        return again
    if draft.schema_json:
        raise InternalError("the model made nothing that matches the schema", code="output_blocked")
    if decision == "regenerate" and draft.passages and draft.origin == Origin.ORIGIN_MODEL:
        text = _after(run, citations.extract(draft.passages))
        return replace(safer, text=text, origin=Origin.ORIGIN_EXTRACT, verdict="regenerate")
    if decision == "abstain" or draft.grounded or draft.origin == Origin.ORIGIN_EXTRACT:
        return replace(safer, text=_after(run, notices.ABSTAIN), status="abstained", verdict="abstain")
    return replace(safer, text=_after(run, notices.BLOCKED_OUTPUT), status="blocked", verdict="block")


async def _again(run: Run, draft: Draft) -> Draft | None:
    """Return a second generation, or None where the first was one, a part has left, or budget or time is used up."""
    if draft.step is None or draft.generated is None or draft.generated.get("model_calls") != 1 or run.answer.sequence:
        return None
    planned = plan(run, draft.step)
    seconds = run.remaining() - RESERVE_SECONDS * run.tools.settings.deadline_factor
    if seconds <= 0:
        return None
    try:
        result = await produce(run, planned, varied=True, timeout=min(seconds, run.timeout(draft.step)))
    except ServiceError as error:
        log.info("regeneration_failed", code=error.code)
        return None
    for name in ("prompt_tokens", "completion_tokens", "cost_usd", "model_calls"):
        result[name] += draft.generated[name]
    if result["text"].strip().startswith(notices.ABSTAIN):
        result |= abstention(planned)
    return _from_result(run, draft.step, result)


def _after(run: Run, text: str) -> str:
    """Return a text as it follows what has left already."""
    return f"\n\n{text}" if run.answer.released_text.strip() else text
