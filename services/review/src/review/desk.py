"""What reviewers do at the desk: look, claim, give back, decide; each access is on record before it is answered."""

import base64
import binascii
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from chassis import rpc
from chassis.errors import InvalidArgumentError, NotFoundError, ServiceError, UnavailableError
from chassis.logging import get_logger
from chassis.messaging import Bus
from contracts.subjects import AUDIT, InvalidTokenError, token
from review import facts, metrics
from review.agreement import krippendorff_alpha
from review.board import Board
from review.intake import Intake
from review.publishing import settle
from review.reviewers import DECIDE, READ, in_charge, may_claim, name_of, require, require_in_charge
from review.reviewing import SEVERITIES, Statement, check, claim, judge, release
from review.settings import Settings
from review.store import Store, key_of
from strata.audit.v1.audit_service_pb2 import ChainedRecord, GetTraceRequest
from strata.gateway.v1.gateway_events_pb2 import Caller
from strata.guardrail.v1.guardrail_service_pb2 import CheckOutputRequest, CheckOutputResponse, Origin
from strata.review.v1.review_events_pb2 import Judgement, ReviewItem
from strata.review.v1.review_service_pb2 import ListReviewsRequest, ListReviewsResponse

log = get_logger("desk")
_PAGE, _LONGEST_PAGE = 50, 200
_NO_TRACE = "0" * 32


@dataclass(frozen=True)
class Peers:
    """Methods of other services; the generated stubs are typed for synchronous use, hence Any."""

    get_trace: Any
    check_output: Any


class Desk:
    """Serves reviewers."""

    def __init__(self, bus: Bus, board: Board, store: Store, intake: Intake, peers: Peers, settings: Settings) -> None:
        """Bind the queue and the peers."""
        self._bus, self._board, self._store, self._intake, self._peers, self._settings = bus, board, store, intake, peers, settings

    async def page(self, request: ListReviewsRequest) -> ListReviewsResponse:
        """Return one page of the tenant's reviews, oldest first, as the caller may see them."""
        caller = request.caller
        require(caller, READ)
        # A mistyped state would look like an empty queue.
        _require_known("status", request.status, ("open", "decided"))
        _require_known("severity", request.severity, SEVERITIES)
        after = _position(request.cursor)
        limit = min(request.limit or _PAGE, _LONGEST_PAGE)
        mine = [item for _, item in self._board.items() if in_charge(item, caller)]
        found = sorted((item for item in mine if _place(item) > after and _matches(item, request)), key=_place)
        page = found[:limit]
        alpha, rated = krippendorff_alpha([[vote.decision for vote in facts.votes(item)] for item in mine if item.status == "decided"])
        now, waiting = datetime.now(UTC), [item for item in mine if item.status == "open"]
        await self._record(caller, request.access_id, "listed", {"reviews": len(page)})
        return ListReviewsResponse(
            items=[shown(item, caller) for item in page],
            next_cursor=_cursor(page[-1]) if len(found) > limit else "",
            open=len(waiting),
            overdue=sum(item.missed_deadlines > 0 or item.deadline.ToDatetime(UTC) <= now for item in waiting),
            decided=len(mine) - len(waiting),
            alpha=alpha,
            rated=rated,
        )

    @asynccontextmanager
    async def _watched(self, caller: Caller, access_id: str, action: str, request_id: str) -> AsyncIterator[None]:
        """Put on record what is refused; what is granted records itself."""
        try:
            yield
        except UnavailableError:
            raise
        except ServiceError as error:
            await self._record(caller, access_id, action, {"request_id": request_id[:64]}, code=error.code)
            raise

    async def get(self, caller: Caller, request_id: str, access_id: str) -> tuple[ReviewItem, list[ChainedRecord], str]:
        """Return a review with the trace of its request, and the code of the error for which that is missing."""
        async with self._watched(caller, access_id, "read", request_id):
            require(caller, READ)
            item = await self._intake.complete(await self._load(caller, request_id))
        await self._record(caller, access_id, "read", {}, item)
        reader = Caller()
        reader.CopyFrom(caller)
        reader.permissions.append("trace:read")
        try:
            timeout = self._settings.rpc_timeout_seconds
            found = await rpc.call(self._peers.get_trace, GetTraceRequest(id=item.request_id, caller=reader), timeout=timeout)
        except ServiceError as error:
            return shown(item, caller), [], error.code
        return shown(item, caller), list(found.records), ""

    async def claim(self, caller: Caller, request_id: str, access_id: str) -> ReviewItem:
        """Give the caller a lease; raise ConflictError while others have it."""
        async with self._watched(caller, access_id, "claimed", request_id):
            require(caller, DECIDE)
            item = await self._load(caller, request_id)
            return await self._change(item, caller, lambda newest: claim(newest, caller, datetime.now(UTC), self._settings))

    async def release(self, caller: Caller, request_id: str, access_id: str) -> ReviewItem:
        """Take the caller's lease back."""
        async with self._watched(caller, access_id, "released", request_id):
            require(caller, DECIDE)
            item = await self._load(caller, request_id)
            return await self._change(item, caller, lambda newest: release(newest, caller, datetime.now(UTC)))

    async def decide(self, caller: Caller, request_id: str, said: Statement, access_id: str) -> ReviewItem:
        """Take what the caller says; a text that guardrail would not let out is refused while its writer can still change it."""
        async with self._watched(caller, access_id, "judged", request_id):
            return await self._decide(caller, request_id, said)

    async def _decide(self, caller: Caller, request_id: str, said: Statement) -> ReviewItem:
        require(caller, DECIDE)
        item = await self._intake.complete(await self._load(caller, request_id))
        if any(_same(judgement, said) for judgement in facts.votes(item) if judgement.reviewer == name_of(caller)):
            return shown(item, caller)
        check(item, caller, said, datetime.now(UTC))
        if text := item.draft.text if said.decision == "approve" else said.text:
            said = replace(said, kept_text=await self._may_leave(item, text))
        wanted = item.reviewers
        item = await self._change(item, caller, lambda newest: judge(newest, caller, said, datetime.now(UTC), self._settings))
        if said.decision != "label" and item.status == "decided":
            metrics.DECIDED.labels(decision=item.decision).inc()
            metrics.SECONDS.observe(item.decided_at.ToMilliseconds() / 1000 - item.escalated_at.ToMilliseconds() / 1000)
        elif item.reviewers > wanted:
            metrics.DISAGREED.inc()
        return item

    async def _load(self, caller: Caller, request_id: str) -> ReviewItem:
        try:
            key = key_of(caller.tenant, token(request_id, what="request_id"))
        except InvalidTokenError as error:
            raise NotFoundError(str(error)) from error
        item, _ = await self._store.load(key)
        require_in_charge(item, caller)
        return item

    async def _change(self, item: ReviewItem, caller: Caller, work: Any) -> ReviewItem:
        """Change a review and bring its facts to the bus; what the bus does not take now, the sweeper brings later."""
        item = await self._store.change(key_of(item.tenant, item.request_id), work)
        try:
            item = await settle(self._bus, self._store, item)
        except UnavailableError as error:
            log.warning("facts_kept_for_later", request_id=item.request_id, error=str(error))
        return shown(item, caller)

    async def _may_leave(self, item: ReviewItem, text: str) -> str:
        """Return a text as it may be kept where consent allows that; raise InvalidArgumentError for one that guardrail will not sign."""
        request = CheckOutputRequest(
            request_id=item.request_id,
            trace_id=item.trace_id,
            caller=item.requester if item.requester.tenant else Caller(tenant=item.tenant),
            final=True,
            text=text,
            origin=Origin.ORIGIN_REVIEWED,
            vault=item.vault,
            status="completed",
            keep=item.consent in facts.CONSENTED,
        )
        found: CheckOutputResponse = await rpc.call(self._peers.check_output, request, timeout=self._settings.rpc_timeout_seconds)
        if not found.HasField("release"):
            reasons = [f"{result.name}: {result.reason}" for result in found.verdict.checks if result.flagged]
            raise InvalidArgumentError("; ".join(reasons) or found.verdict.code, code="review_text_refused")
        return found.kept_text

    async def _record(
        self, caller: Caller, access_id: str, action: str, details: Mapping[str, Any], item: ReviewItem | None = None, code: str = ""
    ) -> None:
        """Put a look at reviews on record; raise UnavailableError where that fails, and nothing is shown."""
        access_id = access_id or secrets.token_hex(12)
        record = facts.step_record(
            record_id=f"{caller.tenant}/{access_id}/review/{action}",
            tenant=caller.tenant,
            request_id=item.request_id if item else access_id,
            trace_id=item.trace_id if item else _NO_TRACE,
            now=datetime.now(UTC),
            code=code,
            user=item.requester.user if item else caller.user,
            details={"action": action, **facts.who(caller), "access_id": access_id, **details},
        )
        at = AUDIT.at(tenant=caller.tenant, step=facts.STEP)
        await self._bus.publish(AUDIT, at, record, event_id=record.record_id, about=record.request_id)


def shown(item: ReviewItem, caller: Caller) -> ReviewItem:
    """Return what the caller may see of a review: never the vault, and nobody else's judgement before all have spoken."""
    view = ReviewItem()
    view.CopyFrom(item)
    view.ClearField("vault")
    view.ClearField("unpublished")
    view.requester.ClearField("permissions")
    view.requester.ClearField("labels")
    if view.status != "decided":
        own = [judgement for judgement in view.judgements if judgement.reviewer == name_of(caller)]
        del view.judgements[:]
        view.judgements.extend(own)
    for judgement in view.judgements:
        judgement.ClearField("kept_text")
    return view


def _same(judgement: Judgement, said: Statement) -> bool:
    """Return whether a reviewer repeats what the bus or the network did not confirm."""
    return (judgement.decision, judgement.text, tuple(judgement.labels)) == (said.decision, said.text, said.labels)


def _require_known(name: str, value: str, known: tuple[str, ...]) -> None:
    if value and value not in known:
        raise InvalidArgumentError(f"unknown {name} {value[:40]!r}; known: {', '.join(known)}")


def _matches(item: ReviewItem, request: ListReviewsRequest) -> bool:
    wanted = (request.status, request.severity, request.reason)
    if any(want and want != has for want, has in zip(wanted, (item.status, item.severity, item.reason), strict=True)):
        return False
    return not request.claimable or may_claim(item, request.caller)


def _place(item: ReviewItem) -> tuple[int, str]:
    return item.escalated_at.ToNanoseconds(), item.request_id


def _cursor(item: ReviewItem) -> str:
    nanoseconds, name = _place(item)
    return base64.urlsafe_b64encode(f"{nanoseconds}/{name}".encode()).decode()


def _position(cursor: str) -> tuple[int, str]:
    if not cursor:
        return (-1, "")
    try:
        nanoseconds, _, name = base64.urlsafe_b64decode(cursor.encode()).decode().partition("/")
        return int(nanoseconds), name
    except (ValueError, UnicodeError, binascii.Error) as error:
        raise InvalidArgumentError("the cursor is not one of ours") from error
