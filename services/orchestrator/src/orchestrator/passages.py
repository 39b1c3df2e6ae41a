"""Shows guardrail the passages that were found, and leaves out those that give orders, before any prompt holds them."""

import asyncio
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chassis import rpc
from chassis.errors import InternalError, ServiceError
from chassis.logging import get_logger
from orchestrator.runs import Run
from orchestrator.settings import Settings
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
    flags: list[Flag] = []
    names = list(dict.fromkeys((*settings.passage_drops, *settings.passage_drop_scores)))
    if found and names:
        seconds = min(run.timeout(step), settings.passage_check_seconds * settings.deadline_factor)
        try:
            flags = _objections(settings, found, await _judged(run, found, names, seconds))
        except ServiceError as error:
            if settings.passages_unchecked == "fail":
                raise
            log.warning("passages_unchecked", request_id=run.request.request_id, code=error.code)
            return list(found), [{"unchecked": len(found), "code": error.code}]
    dropped = {flag.passage.chunk_id for flag in flags if flag.dropped}
    kept = [passage for passage in found if passage.chunk_id not in dropped]
    reported, notes = await _reported(run, kept)
    await asyncio.gather(*(_signal(run, flag) for flag in (*flags, *reported)))
    return kept, [*(flag.described() for flag in (*flags, *reported)), *notes]


def _objections(settings: Settings, found: Sequence[RetrievedPassage], verdicts: Sequence[TextVerdict]) -> list[Flag]:
    """Return who objects enough to leave a passage out, and whose score is only to be told."""
    flags = []
    for passage, verdict in zip(found, verdicts, strict=True):
        for check in verdict.verdict.checks:
            over = check.score >= settings.passage_drop_scores.get(check.name, math.inf)
            dropped = over or (check.flagged and (check.name in settings.passage_drops or bool(check.error)))
            if dropped or check.score >= settings.passage_signals.get(check.name, math.inf):
                flags.append(Flag(passage, check, dropped))
    return flags


async def _reported(run: Run, kept: Sequence[RetrievedPassage]) -> tuple[list[Flag], list[dict[str, Any]]]:
    """Return the scores that are to be told, and a note where they come too late: guardrail remembers what it has, for the next request."""
    settings = run.tools.settings
    asked = {*settings.passage_drops, *settings.passage_drop_scores}
    names = [name for name in settings.passage_signals if name not in asked]
    if not kept or not names:
        return [], []
    try:
        verdicts = await _judged(run, kept, names, settings.passage_signal_seconds * settings.deadline_factor)
    except ServiceError as error:
        return [], [{"unreported": len(kept), "code": error.code}]
    judged = zip(kept, verdicts, strict=True)
    flags = [Flag(passage, check, dropped=False) for passage, verdict in judged for check in verdict.verdict.checks]
    return [f for f in flags if f.check.error or f.check.score >= settings.passage_signals[f.check.name]], []


async def _judged(run: Run, found: Sequence[RetrievedPassage], names: Sequence[str], seconds: float) -> list[TextVerdict]:
    """Return a verdict for each passage, in their order; one call holds what usually is found."""
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
    answers: list[CheckResponse] = await asyncio.gather(*(rpc.call(check, request, timeout=seconds) for request in requests))
    verdicts = [verdict for answer in answers for verdict in answer.results]
    if len(verdicts) != len(found):
        raise InternalError(f"guardrail judged {len(verdicts)} of {len(found)} passages")
    return verdicts


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
