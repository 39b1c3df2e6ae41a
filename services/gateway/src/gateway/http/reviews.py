"""Reviews over HTTP: the queue, one review with its trace, claims and decisions."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chassis import rpc
from chassis.errors import ServiceError
from chassis.messaging import to_json
from gateway.http.chat import Parts
from gateway.http.exchange import Exchange
from gateway.refusals import RefusedError
from strata.gateway.v1.gateway_events_pb2 import Caller
from strata.review.v1 import review_service_pb2 as pb
from strata.review.v1.review_events_pb2 import ReviewItem
from strata.review.v1.review_service_pb2_grpc import ReviewServiceStub

REVIEWS = "/v1/reviews"
READ, DECIDE = "review:read", "review:decide"
_FILTERS = frozenset({"status", "severity", "reason", "claimable", "limit", "cursor"})
# What review says of these is about the reviewer's own input.
_SHOWN = frozenset({"invalid_request", "review_text_refused"})
_LARGEST_PAGE = 200


class DecisionBody(BaseModel):
    """What a reviewer sends."""

    model_config = ConfigDict(extra="ignore")

    decision: str = Field(pattern=r"^(approve|correct|reject|label)$")
    text: str = Field(default="", max_length=60_000)
    labels: tuple[str, ...] = Field(default=(), max_length=32)
    comment: str = Field(default="", max_length=4_000)


class Reviews:
    """Answers everything at and below `/v1/reviews`."""

    def __init__(self, parts: Parts, service: ReviewServiceStub) -> None:
        """Bind the parts and the service that keeps the queue."""
        self._parts, self._service = parts, service

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request; raise ServiceError for whoever may not, and for what is wrong."""
        caller = self._parts.authenticator.authenticate(exchange.header(b"authorization"))
        request_id, _, action = exchange.path.removeprefix(REVIEWS).removeprefix("/").partition("/")
        route = (exchange.method, bool(request_id), action)
        handlers = {
            ("GET", False, ""): self._list,
            ("GET", True, ""): self._get,
            ("POST", True, "claim"): self._claim,
            ("POST", True, "release"): self._release,
            ("POST", True, "decision"): self._decide,
        }
        if (handler := handlers.get(route)) is None:
            raise RefusedError("not_found")
        self._parts.admission.check(caller, READ if exchange.method == "GET" else DECIDE)
        share = self._parts.gate.enter(caller.tenant, 0)
        try:
            await handler(exchange, caller, request_id)
        except ServiceError as error:
            raise _shown(error) from error
        finally:
            share.leave()

    async def _call(self, method: Any, request: Any) -> Any:
        return await rpc.call(method, request, timeout=2 * self._parts.settings.rpc_timeout_seconds)

    async def _list(self, exchange: Exchange, caller: Caller, _: str) -> None:
        query = exchange.query_fields(_FILTERS)
        try:
            limit = int(query.pop("limit", "0"))
        except ValueError as error:
            raise RefusedError("invalid_request", "The limit is not a number.", param="limit") from error
        if not 0 <= limit <= _LARGEST_PAGE:
            raise RefusedError("invalid_request", f"At most {_LARGEST_PAGE} reviews a page.", param="limit")
        claimable = query.pop("claimable", "") in {"1", "true"}
        request = pb.ListReviewsRequest(caller=caller, access_id=exchange.request_id, limit=limit, claimable=claimable, **query)
        found: pb.ListReviewsResponse = await self._call(self._service.ListReviews, request)
        summary: dict[str, Any] = {"open": found.open, "overdue": found.overdue, "decided": found.decided}
        summary["agreement"] = {"alpha": found.alpha if found.HasField("alpha") else None, "reviews": found.rated}
        data = [_body(item) for item in found.items]
        more = bool(found.next_cursor)
        await exchange.respond_json(
            {"object": "list", "data": data, "has_more": more, "next_cursor": found.next_cursor or None, "summary": summary}
        )

    async def _get(self, exchange: Exchange, caller: Caller, request_id: str) -> None:
        request = pb.GetReviewRequest(caller=caller, access_id=exchange.request_id, request_id=request_id)
        found: pb.GetReviewResponse = await self._call(self._service.GetReview, request)
        trace = [to_json(record) for record in found.trace]
        await exchange.respond_json({**_body(found.item), "trace": trace, "trace_error": found.trace_error or None})

    async def _claim(self, exchange: Exchange, caller: Caller, request_id: str) -> None:
        request = pb.ClaimReviewRequest(caller=caller, access_id=exchange.request_id, request_id=request_id)
        found: pb.ClaimReviewResponse = await self._call(self._service.ClaimReview, request)
        await exchange.respond_json(_body(found.item))

    async def _release(self, exchange: Exchange, caller: Caller, request_id: str) -> None:
        request = pb.ReleaseReviewRequest(caller=caller, access_id=exchange.request_id, request_id=request_id)
        found: pb.ReleaseReviewResponse = await self._call(self._service.ReleaseReview, request)
        await exchange.respond_json(_body(found.item))

    async def _decide(self, exchange: Exchange, caller: Caller, request_id: str) -> None:
        settings = self._parts.settings
        raw = await exchange.body(settings.max_body_bytes, settings.body_seconds)
        try:
            said = DecisionBody.model_validate_json(raw)
        except ValidationError as error:
            first = error.errors()[0]
            raise RefusedError("invalid_request", first["msg"][:300], param=".".join(map(str, first["loc"]))[:64]) from error
        request = pb.DecideReviewRequest(
            caller=caller,
            access_id=exchange.request_id,
            request_id=request_id,
            decision=said.decision,
            text=said.text,
            labels=said.labels,
            comment=said.comment,
        )
        found: pb.DecideReviewResponse = await self._call(self._service.DecideReview, request)
        await exchange.respond_json(_body(found.item))


def _body(item: ReviewItem) -> dict[str, Any]:
    shown = to_json(item)
    return {"id": item.request_id, "object": "review", **shown}


def _shown(error: ServiceError) -> ServiceError:
    if isinstance(error, RefusedError) or error.code not in _SHOWN:
        return error
    return RefusedError(error.code, str(error)[:500])
