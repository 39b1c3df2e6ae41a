"""What an answer carries beside its text."""

import time
from collections.abc import Mapping
from typing import Any

from orchestrator import citations
from orchestrator.drafts import Draft
from orchestrator.runs import Run
from orchestrator.workflows import Step
from strata.orchestrator.v1.orchestrator_events_pb2 import Completion, StepUsage


def complete(run: Run, draft: Draft, text: str) -> Completion:
    """Return what guardrail signs of an answer whose whole text is `text`: all but times, and no verdict where none led to it."""
    route, generated = run.route, draft.generated or {}
    completion = Completion(
        status=draft.status,
        finish_reason="content_filter" if draft.status == "blocked" else draft.finish_reason,
        request_class=route.get("request_class", ""),
        intent=route.get("intent", ""),
        tier=generated.get("tier") or route.get("tier", ""),
        model=generated.get("model", ""),
        adapter=generated.get("adapter", ""),
        confidence=route.get("confidence", 0.0),
        citations=citations.cited(text, draft.passages),
        verdict=draft.verdict,
        code=draft.code,
        workflow=f"{run.workflow.name}@{run.workflow.version}",
        origin=draft.origin_name,
        tools=[str(result["tool"]) for result in run.results.values() if result and "tool" in result],
    )
    for source in run.workflow.of_kind("retrieve"):
        found = run.results.get(source.id) or {}
        # Results are kept as JSON, in which whole numbers come back as floats.
        completion.index_versions.update({name: int(number) for name, number in found.get("index_versions", {}).items()})
        completion.watermarks.update({name: int(place) for name, place in found.get("watermarks", {}).items()})
        completion.stale_seconds.update(found.get("stale_seconds", {}))
        for part, outcome in found.get("outcomes", {}).items():
            # Of several searches the one that ran out of budget is the one to know of.
            if completion.retrieval.get(part) != "skipped":
                completion.retrieval[part] = outcome
    _account(run, draft, completion)
    return completion


def finish(run: Run, step: Step, completion: Completion, *, verdict: str, seconds: float) -> None:
    """Fill in the verdict where there is none, and how long everything took, the release `seconds`."""
    completion.verdict = completion.verdict or verdict
    completion.steps.append(StepUsage(step_id=step.id, latency_ms=seconds * 1000))
    completion.latency_ms[step.id] = seconds * 1000
    accepted = run.request.received_at.ToNanoseconds() or run.record.started_at.ToNanoseconds()
    completion.latency_ms["queue"] = max(0, run.record.started_at.ToNanoseconds() - accepted) / 1e6
    completion.latency_ms["total"] = (time.time_ns() - accepted) / 1e6


def _account(run: Run, draft: Draft, completion: Completion) -> None:
    """Fill in tokens, cost and time, by step and in all."""
    for name, finished in run.record.steps.items():
        if finished.outcome == "skipped":
            continue
        made: Mapping[str, Any] = run.results.get(name) or {}
        if draft.step is not None and draft.step.id == name and draft.generated is not None:
            made = draft.generated
        completion.steps.append(
            StepUsage(
                step_id=name,
                latency_ms=finished.latency_ms,
                prompt_tokens=int(made.get("prompt_tokens", 0)),
                completion_tokens=int(made.get("completion_tokens", 0)),
            )
        )
        completion.cost_usd += float(made.get("cost_usd", 0.0))
        completion.latency_ms[name] = finished.latency_ms
    completion.prompt_tokens = sum(usage.prompt_tokens for usage in completion.steps)
    completion.completion_tokens = sum(usage.completion_tokens for usage in completion.steps)
