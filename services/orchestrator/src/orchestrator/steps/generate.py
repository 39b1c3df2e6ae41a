"""Makes a text with a model; while the client streams, whole sentences are released as they come."""

import hashlib
import time
from dataclasses import dataclass, field
from typing import Any

from chassis.errors import DeadlineError, ServiceError
from orchestrator import notices, windows
from orchestrator.drafts import Draft, check, may_leave, rejection
from orchestrator.generation import RESERVE_SECONDS, Plan, abstention, interrupted, plan, produce, shows_passages
from orchestrator.runs import Outcome, Run
from orchestrator.verdicts import describe
from orchestrator.workflows import Step
from strata.guardrail.v1.guardrail_service_pb2 import Origin
from strata.orchestrator.v1.orchestrator_events_pb2 import ResponseReleased

# A model that restarts quickly is waited for; one that does not is replaced by the passages.
_PATIENCE_SECONDS = 4.0


async def generate(run: Run, step: Step) -> Outcome:
    """Generate, unless an answer would have to rest on passages and there are none."""
    planned = plan(run, step)
    if planned.grounded and not planned.passages:
        return Outcome({"text": notices.ABSTAIN, "status": "abstained"}, details={"status": "abstained", "passages": 0})
    prefix = run.answer.released_text
    if not prefix and (again := await run.tools.cache.find(run, planned)) is not None:
        origin = again["cached"]
        details = _details(planned, again) | {"cached": True, "cached_from": origin}
        return Outcome(again, details=details)
    releaser = _Releaser(run, planned, released_chars=len(prefix)) if _may_stream(run, planned) else None
    reserve = RESERVE_SECONDS * run.tools.settings.deadline_factor if shows_passages(planned) else 0.0
    try:
        result = await produce(run, planned, prefix=prefix, on_text=releaser, timeout=run.timeout(step) - reserve)
    except ServiceError as error:
        if not reserve or not _is_hopeless(run, error):
            raise
        result = interrupted(planned, run.answer.released_text, error.code)
    if releaser is not None:
        result["released_chars"] = releaser.released_chars
        if releaser.rejected is not None:
            result["rejected"] = releaser.rejected
    if not result["released_chars"] and result["text"].strip().startswith(notices.ABSTAIN):
        result |= abstention(planned)
    details = _details(planned, result)
    if releaser is not None:
        details["windows"] = releaser.checks
    return Outcome(result, details=details)


def _is_hopeless(run: Run, error: ServiceError) -> bool:
    """Return whether there is no time left for a model, or none has answered for a while."""
    if not error.retryable:
        return isinstance(error, DeadlineError)
    run.model_away_since = run.model_away_since or time.monotonic()
    return time.monotonic() - run.model_away_since > _PATIENCE_SECONDS


@dataclass
class _Releaser:
    """Releases whole sentences of a growing text, each checked and signed alone."""

    run: Run
    planned: Plan
    released_chars: int
    rejected: dict[str, str] | None = None
    checks: list[dict[str, Any]] = field(default_factory=list)

    async def __call__(self, text: str) -> bool:
        """Release what is complete; return whether the generation should go on."""
        beginning = text.lstrip()
        if self.released_chars == 0 and (beginning.startswith(notices.ABSTAIN) or notices.ABSTAIN.startswith(beginning)):
            return True
        complete, _ = windows.split(text[self.released_chars :])
        if not complete:
            return True
        draft = Draft(complete, Origin.ORIGIN_MODEL, passages=self.planned.passages, grounded=self.planned.grounded, step=self.planned.step)
        response = await check(self.run, draft, text=complete, final=False, timeout=self.run.timeout(self.planned.step))
        self.checks.append({"sequence": self.run.answer.sequence, **describe(response.verdict)})
        if not may_leave(response):
            self.rejected = rejection(self.run, response.verdict)
            return False
        request = self.run.request
        await self.run.answer.publish(ResponseReleased(request_id=request.request_id, trace_id=request.trace_id, release=response.release))
        self.released_chars += len(complete)
        return True


def _may_stream(run: Run, planned: Plan) -> bool:
    """Return whether this text, and no other, will be the answer, and may leave in parts."""
    release = run.workflow.release
    if not run.request.stream or planned.schema_json or release is None:
        return False
    if run.workflow.domain in run.tools.catalogue.rules_at_release:
        # What a person may have to decide about must not have left.
        return False
    candidates: list[str] = list(release.spec["from"])
    if planned.step.id not in candidates:
        return False
    before = candidates[: candidates.index(planned.step.id)]
    # Restored names must not come back as the prefix of a generation, so such an answer leaves whole.
    screened = next((run.results[s.id] or {} for s in run.workflow.of_kind("screen") if s.id in run.results), {})
    restored = bool(screened.get("personal_data")) and "pii:read" in run.request.caller.permissions
    return not restored and all(name in run.results and run.results[name] is None for name in before)


def _details(planned: Plan, result: dict[str, Any]) -> dict[str, Any]:
    kept: tuple[str, ...] = (
        "status",
        "finish_reason",
        "tier",
        "deployment",
        "model",
        "adapter",
        "prompt",
        "prompt_sha256",
        "prompt_tokens",
    )
    kept += ("completion_tokens", "cost_usd", "first_token_ms", "rejected")
    return {
        **{name: result[name] for name in kept if name in result},
        "passages": len(planned.passages),
        "text_sha256": hashlib.sha256(str(result["text"]).encode()).hexdigest(),
        "tools_asked": [call["name"] for call in result["tool_calls_asked"]],
    }
