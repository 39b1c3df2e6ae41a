"""Shows guardrail the passages that were found, and leaves out those that give orders, before any prompt holds them."""

import asyncio
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from chassis import rpc
from chassis.errors import InternalError, ServiceError
from chassis.logging import get_logger
from orchestrator.runs import Run
from orchestrator.workflows import Step
from strata.guardrail.v1.guardrail_service_pb2 import STAGE_RETRIEVED, CheckRequest, CheckResponse, CheckResult, TextVerdict
from strata.orchestrator.v1.orchestrator_events_pb2 import PassageFlagged
from strata.retriever.v1.retriever_service_pb2 import RetrievedPassage

log = get_logger("passages")
# As many texts as guardrail takes at once.
_BATCH = 32


@dataclass(frozen=True)
class Flag:
    """What one check said against one passage."""

    passage: RetrievedPassage
    check: CheckResult
    dropped: bool

    def described(self) -> dict[str, Any]:
        """Return what the audit keeps of it."""
        return {
            "chunk": self.passage.chunk_id,
            "document": self.passage.document_id,
            "version": self.passage.version,
            "check": self.check.name,
            "check_version": self.check.version,
            "score": round(self.check.score, 4),
            "reason": self.check.reason,
            "dropped": self.dropped,
        } | ({"error": self.check.error} if self.check.error else {})


async def screened(run: Run, step: Step, found: Sequence[RetrievedPassage]) -> tuple[list[RetrievedPassage], list[dict[str, Any]]]:
    """Return the passages that a prompt may hold, and what the audit keeps of the others and of those that are only reported.

    Where guardrail does not answer, the step fails and is tried again, or, if the setting says `keep`, goes on with a note.
    """
    settings = run.tools.settings
    names = [*settings.passage_drops, *(name for name in settings.passage_signals if name not in settings.passage_drops)]
    if not found or not names:
        return list(found), []
    try:
        verdicts = await _judged(run, step, found, names)
    except ServiceError as error:
        if settings.passages_unchecked == "fail":
            raise
        log.warning("passages_unchecked", request_id=run.request.request_id, code=error.code)
        return list(found), [{"unchecked": len(found), "code": error.code}]
    flags = [flag for passage, verdict in zip(found, verdicts, strict=True) for flag in _flags(run, passage, verdict)]
    await asyncio.gather(*(_signal(run, flag) for flag in flags))
    dropped = {flag.passage.chunk_id for flag in flags if flag.dropped}
    return [passage for passage in found if passage.chunk_id not in dropped], [flag.described() for flag in flags]


async def _judged(run: Run, step: Step, found: Sequence[RetrievedPassage], names: Sequence[str]) -> list[TextVerdict]:
    """Return a verdict for each passage, in their order; one call holds what usually is found."""
    timeout = min(run.timeout(step), run.tools.settings.passage_check_seconds * run.tools.settings.deadline_factor)
    requests = [
        CheckRequest(
            caller=run.request.caller,
            stage=STAGE_RETRIEVED,
            texts=[f"{passage.title}\n{passage.text}" for passage in found[start : start + _BATCH]],
            checks=names,
        )
        for start in range(0, len(found), _BATCH)
    ]
    check = run.tools.peers.guardrail.Check
    answers: list[CheckResponse] = await asyncio.gather(*(rpc.call(check, request, timeout=timeout) for request in requests))
    verdicts = [verdict for answer in answers for verdict in answer.results]
    if len(verdicts) != len(found):
        raise InternalError(f"guardrail judged {len(verdicts)} of {len(found)} passages")
    return verdicts


def _flags(run: Run, passage: RetrievedPassage, verdict: TextVerdict) -> Iterator[Flag]:
    """Yield what counts: an objection of a check that drops, and a score that is to be reported."""
    settings = run.tools.settings
    for check in verdict.verdict.checks:
        if check.name in settings.passage_drops and check.flagged:
            yield Flag(passage, check, dropped=True)
        elif check.error or check.score >= settings.passage_signals.get(check.name, float("inf")):
            yield Flag(passage, check, dropped=False)


async def _signal(run: Run, flag: Flag) -> None:
    """Publish that a passage was flagged; the same passage counts once in the bus' window of duplicates."""
    passage, tenant = flag.passage, run.request.caller.tenant
    event = PassageFlagged(
        tenant=tenant,
        request_id=run.request.request_id,
        trace_id=run.request.trace_id,
        collection=passage.collection,
        document_id=passage.document_id,
        version=passage.version,
        chunk_id=passage.chunk_id,
        document_sha256=passage.document_sha256,
        check=flag.check.name,
        score=flag.check.score,
        dropped=flag.dropped,
        reason=flag.check.reason or flag.check.error,
    )
    event.flagged_at.GetCurrentTime()
    place = (tenant, passage.collection, passage.chunk_id, passage.version, passage.document_sha256, flag.check.name, str(flag.dropped))
    await run.tools.recorder.signal(event, event_id=hashlib.sha256("\0".join(place).encode()).hexdigest()[:32])
