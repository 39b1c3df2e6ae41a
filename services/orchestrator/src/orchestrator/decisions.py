"""What people decided becomes an answer: checked and signed like every other, and told once."""

import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.errors import Error as JetStreamError
from nats.js.errors import KeyNotFoundError
from nats.js.kv import KV_PURGE

from chassis import rpc
from chassis.consuming import consuming
from chassis.errors import NotFoundError, ServiceError, UnavailableError
from chassis.logging import bound_contextvars, get_logger
from chassis.messaging import Bus, Consumer
from chassis.stops import StoppedError
from contracts.streams import ORCHESTRATOR_REVIEWS, REVIEWS
from contracts.subjects import DECISION, REVIEW
from orchestrator import notices
from orchestrator.answers import Answer
from orchestrator.peers import Peers
from orchestrator.recording import Recorder, build
from orchestrator.records import StaleOwnerError
from orchestrator.settings import Settings
from orchestrator.verdicts import decision_name, describe
from strata.audit.v1.audit_events_pb2 import StepRecorded
from strata.gateway.v1.gateway_events_pb2 import Caller, RequestAdmitted
from strata.guardrail.v1.guardrail_service_pb2 import CheckOutputRequest, CheckOutputResponse, Origin
from strata.orchestrator.v1.orchestrator_events_pb2 import Completion, DecisionReleased
from strata.review.v1.review_events_pb2 import ReviewDecided, ReviewItem

log = get_logger("decisions")
_FINAL = frozenset({"approve", "correct", "reject"})
_CHECK_SECONDS = 10.0
# A replica of the bucket may lag behind its stream for a moment, not for ever.
_PATIENCE = 30


class _ErasedError(Exception):
    """The person whose request was reviewed is erased."""


class Decisions:
    """Handles what review says; the review itself, not the event, is what counts."""

    def __init__(self, bus: Bus, peers: Peers, settings: Settings) -> None:
        """Bind the bus and guardrail."""
        self._bus, self._guardrail, self._settings = bus, peers.guardrail, settings
        self._recorder = Recorder(bus)

    async def handle(self, event: ReviewDecided, message: Msg) -> None:
        """Answer a decided review, once; raise UnavailableError to be tried again, NotFoundError for a review that is none."""
        if event.decision not in _FINAL:
            return
        with bound_contextvars(request_id=event.request_id, tenant=event.tenant):
            try:
                item = await self._item(event)
            except _ErasedError:
                return
            if item is None or item.status != "decided":
                if message.metadata.num_delivered > _PATIENCE:
                    raise NotFoundError("there is no decided review behind this event")
                raise UnavailableError("the review is not decided yet")
            await self._answer(item)
            with suppress(_ErasedError):
                await self._item(event)
                return
            await self._take_back(item)

    async def _take_back(self, item: ReviewItem) -> None:
        """Remove a decision that left while the person was erased."""
        subject = DECISION.at(tenant=item.tenant, request_id=item.request_id)
        try:
            await self._bus.js.purge_stream(DECISION.stream, subject=subject)
        except (TimeoutError, NatsError, JetStreamError) as error:
            raise UnavailableError(f"the decision cannot be erased: {error!r}") from error

    async def _item(self, event: ReviewDecided) -> ReviewItem | None:
        try:
            entry = await (await self._bus.js.key_value(REVIEWS)).get(f"{event.tenant}.{event.request_id}")
        except KeyNotFoundError as gone:
            if gone.op == KV_PURGE:
                raise _ErasedError from gone
            return None
        except (TimeoutError, NatsError, JetStreamError) as error:
            raise UnavailableError(f"the review cannot be read: {error!r}") from error
        return ReviewItem.FromString(entry.value or b"")

    async def _answer(self, item: ReviewItem) -> None:
        caller = item.requester if item.requester.tenant else Caller(tenant=item.tenant)
        request = RequestAdmitted(request_id=item.request_id, trace_id=item.trace_id, caller=caller)
        answer = Answer(self._bus, request, self._settings.state_dir, at=DECISION)
        await answer.load()
        if answer.final is None:
            await self._tell(item, caller, answer)
        await self._verify(item)

    async def _tell(self, item: ReviewItem, caller: Caller, answer: Answer) -> None:
        status = "blocked" if item.decision == "reject" else "completed"
        text = notices.REVIEW_REJECTED if item.decision == "reject" else item.text
        completion = _completion(item, status)
        check = CheckOutputRequest(
            request_id=item.request_id,
            trace_id=item.trace_id,
            caller=caller,
            final=True,
            text=text,
            origin=Origin.ORIGIN_REVIEWED,
            vault=item.vault,
            status=status,
            completion=completion.SerializeToString(),
        )
        try:
            checked: CheckOutputResponse = await rpc.call(self._guardrail.CheckOutput, check, timeout=_CHECK_SECONDS)
        except ServiceError as error:
            if error.code == StoppedError.default_code:
                # What people decided is not lost to a stop; it leaves when that is lifted.
                raise UnavailableError("stopped; the decision waits") from error
            raise
        message = DecisionReleased(
            request_id=item.request_id,
            trace_id=item.trace_id,
            decision=item.decision,
            reviewers=sum(judgement.decision != "label" for judgement in item.judgements),
            decided_at=item.decided_at,
        )
        if checked.HasField("release"):
            message.release.CopyFrom(checked.release)
            completion.verdict = decision_name(checked.verdict)
            message.completion.CopyFrom(completion)
        else:
            message.error_code = "output_blocked"
        await self._record(item, status, checked)
        try:
            await answer.publish(message)
        except StaleOwnerError as error:
            # Another instance was faster; if what it told is an answer, the next look finds it.
            raise UnavailableError("another instance has told something meanwhile") from error
        log.info("decision_released", decision=item.decision, released=checked.HasField("release"))

    async def _verify(self, item: ReviewItem) -> None:
        """Put on record that the stream has the decision; a repeat is the same record."""
        record = _about(item, "review_told", "succeeded", "", {"decision": item.decision})
        record.phase = "verified"
        await self._recorder.publish(record)

    async def _record(self, item: ReviewItem, status: str, checked: CheckOutputResponse) -> None:
        """Put the release on record before it leaves; a repeat is the same record."""
        released = checked.HasField("release")
        details = {
            "status": status,
            "origin": "reviewed",
            "decision": item.decision,
            "agreement": item.agreement,
            "reviewers": [judgement.reviewer for judgement in item.judgements if judgement.decision != "label"],
            "rule_id": item.rule_id,
            "rule_version": item.rule_version,
            "checks": [describe(checked.verdict)],
            "text_sha256": hashlib.sha256(checked.release.text.encode()).hexdigest() if released else "",
            "signing_key": checked.release.key_id,
        }
        outcome, code = ("succeeded", "") if released else ("rejected", "output_blocked")
        record = _about(item, "review_release", outcome, code, details)
        record.phase = "attempted"
        await self._recorder.publish(record)


def _about(item: ReviewItem, step_id: str, outcome: str, code: str, details: Mapping[str, Any]) -> StepRecorded:
    record = build(
        tenant=item.tenant,
        request_id=item.request_id,
        trace_id=item.trace_id,
        step="release",
        step_id=step_id,
        epoch=1,
        outcome=outcome,
        code=code,
        details=details,
    )
    record.user = item.requester.user
    record.started_at.CopyFrom(item.decided_at)
    return record


def _completion(item: ReviewItem, status: str) -> Completion:
    approved = item.decision == "approve"
    completion = Completion(
        status=status,
        finish_reason="content_filter" if status == "blocked" else "stop",
        model=item.draft.model if approved else "",
        adapter=item.draft.adapter if approved else "",
        citations=item.draft.citations if approved else (),
        code="review_rejected" if status == "blocked" else "",
        workflow=item.workflow,
        origin="reviewed",
    )
    completion.latency_ms["review"] = item.decided_at.ToMilliseconds() - item.escalated_at.ToMilliseconds()
    return completion


@asynccontextmanager
async def deciding(bus: Bus, peers: Peers, settings: Settings) -> AsyncIterator[None]:
    """Answer decided reviews until the block ends."""
    consumer = Consumer(bus, ORCHESTRATOR_REVIEWS, REVIEW, Decisions(bus, peers, settings).handle, workers=4)
    async with consuming(consumer, drain_seconds=settings.drain_seconds):
        yield
