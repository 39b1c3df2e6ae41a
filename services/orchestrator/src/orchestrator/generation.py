"""What a generate step asks of which model, and the text that comes back."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from chassis import rpc
from chassis.errors import InternalError, ServiceError, UnavailableError
from orchestrator import citations, notices
from orchestrator.catalogue import Prompt
from orchestrator.questions import question_of
from orchestrator.runs import Run
from orchestrator.workflows import Step
from strata.gateway.v1.gateway_events_pb2 import Sampling
from strata.guardrail.v1.guardrail_service_pb2 import Clearance
from strata.inference.v1.inference_service_pb2 import Generated, GenerateRequest, Usage

# Sees the whole text so far; False stops the generation.
OnText = Callable[[str], Awaitable[bool]]
_VARIED_TEMPERATURE = 0.7
# Kept free for checking and releasing the passages when a generation takes too long.
RESERVE_SECONDS = 1.0


@dataclass(frozen=True)
class Plan:
    """Everything that decides a generation."""

    step: Step
    prompt: Prompt
    tier: str
    adapter: str
    passages: list[dict[str, Any]]
    # Whether every claim must rest on the passages.
    grounded: bool
    schema_json: str
    max_tokens: int


def plan(run: Run, step: Step) -> Plan:
    """Return what a step generates; an override of policy wins, then the client, then the step, then the router."""
    name = _choose(run, step, "task")
    prompt = run.tools.catalogue.prompts.get(name)
    if prompt is None:
        raise InternalError(f"the policy names the prompt {name!r}, which is not there")
    sources = [s for s in run.workflow.of_kind("retrieve") if s.id in step.ancestors]
    items = [item for source in sources for item in (run.results.get(source.id) or {}).get("items", ())]
    wanted = int(step.spec.get("max_tokens", prompt.max_tokens))
    return Plan(
        step=step,
        prompt=prompt,
        tier=_choose(run, step, "tier"),
        adapter=_choose(run, step, "adapter"),
        passages=citations.number(items),
        grounded=bool(sources),
        schema_json=(run.request.response_schema_json if prompt.passthrough else "") or prompt.schema_json,
        max_tokens=min(wanted, run.request.sampling.max_tokens or wanted),
    )


def _choose(run: Run, step: Step, field: str) -> str:
    route = run.route
    overrides: Mapping[str, Mapping[str, str]] = {}
    for router in run.workflow.of_kind("route"):
        overrides = run.tools.catalogue.overrides.get(router.spec["domain"], {})
    if any(field in overrides.get(rule, {}) for rule in route.get("policy_ids", ())) and route.get(field):
        return str(route[field])
    named = "" if field == "task" else getattr(run.request, field)
    return str(named or step.spec.get(field) or route.get(field) or "")


async def produce(
    run: Run,
    plan: Plan,
    *,
    prefix: str = "",
    varied: bool = False,
    on_text: OnText | None = None,
    timeout: float,  # noqa: ASYNC109 - for rpc
) -> dict[str, Any]:
    """Return the text, with the model and what it cost, as a step's result; `prefix` is continued and part of the text."""
    request = _request(run, plan, run.spend_model_call(plan.max_tokens), prefix, varied=varied)
    text, done, stopped, pieces = prefix, None, False, 0
    try:
        async for part in rpc.stream(run.tools.peers.inference.Generate, request, timeout=timeout):
            if part.HasField("done"):
                done = part.done
                break
            text, pieces = text + part.delta, pieces + 1
            if on_text is not None and not await on_text(text):
                stopped = True
                break
    except ServiceError:
        run.model_calls -= 1
        raise
    if done is None and not stopped:
        run.model_calls -= 1
        raise UnavailableError("the generation ended without its summary")
    # A generation that was stopped has no summary; its pieces are about its tokens.
    done = done or Generated(finish_reason="stop", adapter=plan.adapter, usage=Usage(completion_tokens=pieces))
    result = _result(plan, text, done)
    run.output_tokens += int(result["completion_tokens"])
    return result


def interrupted(plan: Plan, released: str, code: str) -> dict[str, Any]:
    """Return the result of a generation that ended with `code` after `released` had left: its rest will be an extract."""
    result = _result(plan, released, Generated(finish_reason="stop", adapter=plan.adapter))
    # Two calls, so that there is no second generation, for which there would be no time.
    return result | {"model_calls": 2, "rejected": {"decision": "regenerate", "code": code}}


def shows_passages(plan: Plan) -> bool:
    """Return whether the passages themselves may stand in for a text."""
    return bool(plan.passages) and plan.step.spec.get("on_abstain") == "extract"


def abstention(plan: Plan) -> dict[str, str]:
    """Return what becomes of a result whose model found no answer: a notice, or the passages where the step says so."""
    return {"text": notices.ABSTAIN, "status": "extracted" if shows_passages(plan) else "abstained"}


def _request(run: Run, plan: Plan, max_tokens: int, prefix: str, *, varied: bool) -> GenerateRequest:
    sampling = Sampling()
    sampling.CopyFrom(run.request.sampling)
    sampling.max_tokens = max_tokens
    if varied:
        sampling.seed = (sampling.seed if sampling.HasField("seed") else 0) + 1
        sampling.temperature = _VARIED_TEMPERATURE
    request = GenerateRequest(
        request_id=run.request.request_id,
        caller=run.request.caller,
        tier=plan.tier,
        adapter=plan.adapter,
        prompt=plan.prompt.name,
        schema_json=plan.schema_json if plan.prompt.passthrough else "",
        sampling=sampling,
        prefix=prefix,
    )
    if plan.step.spec.get("canary"):
        request.canary = run.canary
    if clearance := run.clearance:
        request.clearance.CopyFrom(Clearance(**clearance))
    if plan.prompt.passthrough:
        request.messages.extend(run.messages)
        request.tools.extend(run.request.tools)
        request.tool_choice_json = run.request.tool_choice_json
    passages = [{key: p[key] for key in ("n", "title", "text", "version", "date")} for p in plan.passages]
    # The story around a question leads a small model astray; without passages the story is the task.
    question = question_of(run.message) if plan.grounded else run.message
    request.variables.update({"question": question, "passages": passages})
    return request


def _result(plan: Plan, text: str, done: Generated) -> dict[str, Any]:
    return {
        "text": text or done.text,
        "status": "completed",
        "finish_reason": done.finish_reason or "stop",
        "tool_calls_asked": [{"id": c.id, "name": c.name, "arguments_json": c.arguments_json} for c in done.tool_calls],
        "tier": plan.tier,
        "deployment": done.deployment,
        "model": done.model,
        "adapter": done.adapter,
        "prompt": done.prompt or plan.prompt.name,
        "prompt_sha256": done.prompt_sha256,
        "prompt_tokens": done.usage.prompt_tokens,
        "completion_tokens": done.usage.completion_tokens,
        "cost_usd": done.cost_usd,
        "first_token_ms": done.first_token_ms,
        "model_calls": 1,
        "released_chars": 0,
    }
