"""gRPC in: translates, and leaves every decision to the desk."""

import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from chassis.errors import InvalidArgumentError
from chassis.messaging import Bus
from chassis.rpc import Context
from contracts.subjects import AUDIT, TOKEN
from review import facts
from review.desk import Desk
from review.examples import collected
from review.reviewers import EXPORT, require
from review.reviewing import Statement
from strata.review.v1 import review_service_pb2 as pb
from strata.review.v1.review_service_pb2_grpc import ReviewServiceServicer

_LONGEST_TEXT, _LONGEST_COMMENT, _MOST_LABELS = 60_000, 4_000, 32


class ReviewServicer(ReviewServiceServicer):
    """Answers the contract."""

    def __init__(self, desk: Desk, bus: Bus) -> None:
        """Bind the desk."""
        self._desk, self._bus = desk, bus

    async def ListReviews(self, request: pb.ListReviewsRequest, context: Context) -> pb.ListReviewsResponse:  # noqa: N802, ARG002
        """Return one page."""
        return await self._desk.page(request)

    async def GetReview(self, request: pb.GetReviewRequest, context: Context) -> pb.GetReviewResponse:  # noqa: N802, ARG002
        """Return one review with its trace."""
        item, trace, error = await self._desk.get(request.caller, request.request_id, request.access_id)
        return pb.GetReviewResponse(item=item, trace=trace, trace_error=error)

    async def ClaimReview(self, request: pb.ClaimReviewRequest, context: Context) -> pb.ClaimReviewResponse:  # noqa: N802, ARG002
        """Give a lease."""
        return pb.ClaimReviewResponse(item=await self._desk.claim(request.caller, request.request_id, request.access_id))

    async def ReleaseReview(self, request: pb.ReleaseReviewRequest, context: Context) -> pb.ReleaseReviewResponse:  # noqa: N802, ARG002
        """Take a lease back."""
        return pb.ReleaseReviewResponse(item=await self._desk.release(request.caller, request.request_id, request.access_id))

    async def DecideReview(self, request: pb.DecideReviewRequest, context: Context) -> pb.DecideReviewResponse:  # noqa: N802, ARG002
        """Take a judgement."""
        if len(request.text) > _LONGEST_TEXT or len(request.comment) > _LONGEST_COMMENT or len(request.labels) > _MOST_LABELS:
            raise InvalidArgumentError(f"at most {_LONGEST_TEXT} characters of text, {_LONGEST_COMMENT} of comment, {_MOST_LABELS} labels")
        if wrong := [label for label in request.labels if not TOKEN.fullmatch(label)]:
            raise InvalidArgumentError(f"the label {wrong[0][:64]!r} is not 1 to 64 of a-z, 0-9, '-' and '_'")
        said = Statement(request.decision, request.text, tuple(sorted(set(request.labels))), request.comment)
        return pb.DecideReviewResponse(item=await self._desk.decide(request.caller, request.request_id, said, request.access_id))

    async def ExportExamples(  # noqa: N802
        self,
        request: pb.ExportExamplesRequest,
        context: Context,  # noqa: ARG002
    ) -> AsyncIterator[pb.ExportExamplesResponse]:
        """Stream examples to who may take them out; that they were taken is on record first."""
        require(request.caller, EXPORT)
        consents = set(request.consents) or {"training"}
        access = request.access_id or secrets.token_hex(12)
        details = {"action": "exported", **facts.who(request.caller), "tenant": request.tenant, "consents": sorted(consents)}
        tenant = request.caller.tenant
        record = facts.step_record(
            record_id=f"{tenant}/{access}/review/exported",
            tenant=tenant,
            request_id=access,
            trace_id="0" * 32,
            now=datetime.now(UTC),
            details=details,
        )
        await self._bus.publish(AUDIT, AUDIT.at(tenant=tenant, step=facts.STEP), record, event_id=record.record_id, about=access)
        async for example in collected(self._bus, tenant=request.tenant, consents=consents):
            yield pb.ExportExamplesResponse(example=example)
