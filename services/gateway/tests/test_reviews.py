"""Reviews over HTTP, and the decision that a client waits for."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import scripted

from chassis.errors import ConflictError, InvalidArgumentError
from chassis.rpc import rpc_server
from contracts import releases
from contracts.streams import REVIEWS
from contracts.subjects import DECISION, RESPONSE
from strata.audit.v1.audit_service_pb2 import ChainedRecord
from strata.gateway.v1.gateway_events_pb2 import Caller, RequestAdmitted
from strata.guardrail.v1.guardrail_service_pb2 import ReleaseClaims
from strata.orchestrator.v1.orchestrator_events_pb2 import DecisionReleased
from strata.review.v1 import review_service_pb2 as pb
from strata.review.v1.review_events_pb2 import ReviewItem
from strata.review.v1.review_service_pb2_grpc import ReviewServiceServicer, add_ReviewServiceServicer_to_server

_CHAT = "/v1/chat/completions"
_BODY = {"messages": [{"role": "user", "content": "My chest hurts."}]}


async def wait_for_a_person(orchestrator: scripted.Orchestrator, request: RequestAdmitted) -> None:
    """Tell the client that a person will decide."""
    final = scripted.completion(status="pending_review", code="urgent_symptom", model="", adapter="", origin="notice")
    await orchestrator.send(request, orchestrator.signer.window(request, 0, "A nurse will read it.", final=final))


def decision(stack: Any, request: RequestAdmitted, text: str, *, reviewed: bool = True, status: str = "completed") -> DecisionReleased:
    """Return a signed decision."""
    signer = stack.orchestrator.signer
    claims = ReleaseClaims(
        request_id=request.request_id, trace_id=request.trace_id, tenant=request.caller.tenant, final=True, status=status, reviewed=reviewed
    )
    final = scripted.completion(status=status, origin="reviewed", model="", adapter="")
    claims.completion_sha256 = scripted.digest(final)
    release = releases.sign(signer.key, signer.key_id, claims, text)
    return DecisionReleased(
        request_id=request.request_id, trace_id=request.trace_id, release=release, completion=final, decision="correct", reviewers=1
    )


async def tell(stack: Any, request: RequestAdmitted, message: Any, subject: Any = DECISION) -> None:
    """Publish as the orchestrator does."""
    at = subject.at(tenant=request.caller.tenant, request_id=request.request_id)
    await stack.orchestrator.bus.publish(subject, at, message)


async def test_a_client_waits_for_the_decision_and_gets_it(stack) -> None:
    """Pending until a person has decided, then reviewed with the person's answer, whoever asks again."""
    stack.orchestrator.script = wait_for_a_person
    async with stack.http() as http:
        first = (await http.post(_CHAT, json=_BODY)).json()["strata"]
        name = first["request_id"]
        pending = (await http.get(f"/v1/requests/{name}?wait=0.2")).json()
        (request,) = stack.orchestrator.seen
        waiting = asyncio.create_task(http.get(f"/v1/requests/{name}?wait=59"))
        await asyncio.sleep(0.3)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await tell(stack, request, decision(stack, request, "Come in today."))
        answer = (await waiting).json()
        took = loop.time() - began
        again = (await http.get(f"/v1/requests/{name}?wait=59")).json()
        wrong = [(await http.get(f"/v1/requests/{name}?wait={seconds}")).status_code for seconds in ("soon", "-1", "nan")]

    assert (first["status"], pending["status"]) == ("pending_review", "pending_review")
    assert (answer["status"], answer["completion"]["choices"][0]["message"]["content"]) == ("reviewed", "Come in today.")
    assert answer["completion"]["strata"]["origin"] == "reviewed"
    assert again["completion"]["choices"] == answer["completion"]["choices"]
    assert (took < 50, wrong) == (True, [400, 400, 400])


async def test_a_rejection_is_an_answer_and_no_error(stack) -> None:
    """What a person has rejected is told in the product's words."""
    stack.orchestrator.script = wait_for_a_person
    async with stack.http() as http:
        name = (await http.post(_CHAT, json=_BODY)).headers["x-request-id"]
        (request,) = stack.orchestrator.seen
        await tell(stack, request, decision(stack, request, "We cannot answer it here.", status="blocked"))
        answer = (await http.get(f"/v1/requests/{name}")).json()

    assert (answer["status"], answer["completion"]["choices"][0]["finish_reason"]) == ("reviewed", "content_filter")


async def test_a_release_counts_in_its_own_place_alone(stack) -> None:
    """A signed answer replayed as a decision, or a decision as an answer, is refused."""

    async def decide_at_once(orchestrator: scripted.Orchestrator, request: RequestAdmitted) -> None:
        await tell(stack, request, decision(stack, request, "Too early."), RESPONSE)
        await wait_for_a_person(orchestrator, request)

    stack.orchestrator.script = decide_at_once
    async with stack.http() as http:
        answer = (await http.post(_CHAT, json=_BODY)).json()
        (request,) = stack.orchestrator.seen
        await tell(stack, request, decision(stack, request, "Not decided.", reviewed=False))
        later = (await http.get(f"/v1/requests/{request.request_id}")).json()

    assert answer["choices"][0]["message"]["content"] == "A nurse will read it."
    assert (later["status"], later["completion"]["choices"][0]["message"]["content"]) == ("pending_review", "A nurse will read it.")


async def test_a_decision_is_for_who_asked_even_when_the_run_is_forgotten(stack, admin) -> None:
    """Runs are kept for a day; the review knows who asked."""
    stranger = await stack.new_key()
    request = RequestAdmitted(request_id="req_old", trace_id="0" * 32, caller=Caller(tenant="acme"))
    item = ReviewItem(request_id="req_old", tenant="acme", requester=Caller(tenant="acme", key_id=stack.key.split("-")[2], user="u1"))
    await (await admin.jetstream().key_value(REVIEWS)).put("acme.req_old", item.SerializeToString())
    await tell(stack, request, decision(stack, request, "Come in today."))
    async with stack.http() as http:
        own = await http.get("/v1/requests/req_old")
        other = await http.get("/v1/requests/req_old", headers={"authorization": f"Bearer {stranger}"})

    assert (own.status_code, own.json()["status"], other.status_code) == (200, "reviewed", 404)


class _Review(ReviewServiceServicer):
    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def ListReviews(self, request: Any, _: object) -> pb.ListReviewsResponse:  # noqa: N802 - gRPC's name
        self.asked.append(request)
        return pb.ListReviewsResponse(items=[ReviewItem(request_id="r1", severity="high")], next_cursor="c", open=1, alpha=0.5, rated=3)

    async def GetReview(self, request: Any, _: object) -> pb.GetReviewResponse:  # noqa: N802 - gRPC's name
        return pb.GetReviewResponse(item=ReviewItem(request_id=request.request_id), trace=[ChainedRecord(index=4)])

    async def ClaimReview(self, request: Any, _: object) -> pb.ClaimReviewResponse:  # noqa: N802 - gRPC's name
        raise ConflictError("somebody@clinic has it", code="review_claimed")

    async def DecideReview(self, request: Any, _: object) -> pb.DecideReviewResponse:  # noqa: N802 - gRPC's name
        self.asked.append(request)
        if request.text == "bad":
            raise InvalidArgumentError("safety: not allowed", code="review_text_refused")
        return pb.DecideReviewResponse(item=ReviewItem(request_id=request.request_id, status="decided"))


@asynccontextmanager
async def reviewing() -> AsyncIterator[_Review]:
    """Run a scripted review service."""
    service = _Review()
    async with rpc_server(scripted.OtherSettings(), "review", lambda server: add_ReviewServiceServicer_to_server(service, server)):
        yield service


async def test_reviewers_work_over_http(stack) -> None:
    """Filters, pages, claims and decisions go through with who asks; refusals keep their codes and show nobody else's names."""
    nurse = {"authorization": f"Bearer {await stack.new_key(role='nurse')}"}
    async with reviewing() as service, stack.http() as http:
        listed = (await http.get("/v1/reviews?status=open&claimable=1&limit=5&cursor=a", headers=nurse)).json()
        shown = (await http.get("/v1/reviews/r1", headers=nurse)).json()
        claimed = await http.post("/v1/reviews/r1/claim", headers=nurse)
        body = {"decision": "correct", "text": "Rest.", "labels": ["fever"]}
        decided = (await http.post("/v1/reviews/r1/decision", json=body, headers=nurse)).json()
        refused = await http.post("/v1/reviews/r1/decision", json={**body, "text": "bad"}, headers=nurse)
        wrong = [
            await http.get("/v1/reviews?colour=red", headers=nurse),
            await http.get("/v1/reviews?limit=many", headers=nurse),
            await http.post("/v1/reviews/r1/decision", json={"decision": "maybe"}, headers=nurse),
        ]
        powerless = await http.get("/v1/reviews")
        missing = await http.post("/v1/reviews/r1/burn", headers=nurse)

    assert (listed["data"][0]["id"], listed["next_cursor"], listed["has_more"]) == ("r1", "c", True)
    assert listed["summary"]["agreement"] == {"alpha": 0.5, "reviews": 3}
    first = service.asked[0]
    assert (first.caller.role, first.status, first.claimable, first.limit, first.cursor) == ("nurse", "open", True, 5, "a")
    assert (shown["id"], shown["trace"][0]["index"]) == ("r1", "4")
    assert (claimed.status_code, claimed.json()["error"]["code"], "somebody" in claimed.text) == (409, "review_claimed", False)
    assert (decided["status"], list(service.asked[1].labels)) == ("decided", ["fever"])
    assert (refused.status_code, "safety: not allowed" in refused.json()["error"]["message"]) == (422, True)
    assert [answer.status_code for answer in wrong] == [400, 400, 400]
    assert (powerless.status_code, missing.status_code) == (403, 404)
