"""Review on a real bus, with guardrail and audit answering by script over real gRPC."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest_asyncio
from nats.aio.client import Client
from nats.js.errors import NotFoundError as NoMessageError

from chassis import process, rpc
from chassis.messaging import decode, encode
from chassis.provisioning import load_signing_key
from chassis.rpc import rpc_server
from chassis.settings import ServiceSettings
from contracts.releases import sign
from contracts.streams import REVIEWS, RUNS
from contracts.subjects import ESCALATION, Subject
from review.main import start
from review.settings import Settings
from strata.audit.v1.audit_events_pb2 import StepRecorded
from strata.audit.v1.audit_service_pb2 import ChainedRecord, GetTraceResponse
from strata.audit.v1.audit_service_pb2_grpc import AuditServiceServicer, add_AuditServiceServicer_to_server
from strata.gateway.v1.gateway_events_pb2 import Caller, ChatMessage
from strata.guardrail.v1 import guardrail_service_pb2 as guard
from strata.guardrail.v1.guardrail_events_pb2 import Escalated
from strata.guardrail.v1.guardrail_service_pb2_grpc import GuardrailServiceServicer, add_GuardrailServiceServicer_to_server
from strata.orchestrator.v1.orchestrator_events_pb2 import HeldDraft, RunRecord
from strata.review.v1 import review_service_pb2 as pb
from strata.review.v1.review_events_pb2 import ReviewItem
from strata.review.v1.review_service_pb2_grpc import ReviewServiceStub
from testkit.nats import NatsServer

RIGHTS = ["review:read", "review:decide"]


def reviewer(name: str = "ruth", *, role: str = "nurse", tenant: str = "acme") -> Caller:
    """Return somebody who may review."""
    return Caller(tenant=tenant, role=role, user=name, key_id=f"key-{name}", permissions=RIGHTS)


class _Guardrail(GuardrailServiceServicer):
    def __init__(self, state_dir: Any) -> None:
        self._key_id, self._key = load_signing_key(state_dir)

    async def CheckOutput(self, request: Any, _: object) -> guard.CheckOutputResponse:  # noqa: N802 - gRPC's name
        if "forbidden" in request.text:
            check = guard.CheckResult(name="safety", flagged=True, reason="not allowed")
            return guard.CheckOutputResponse(verdict=guard.Verdict(decision=guard.DECISION_BLOCK, code="unsafe", checks=[check]))
        claims = guard.ReleaseClaims(request_id=request.request_id, reviewed=True)
        kept = request.text.replace("Pat Roe", "<PERSON_1>") if request.keep else ""
        return guard.CheckOutputResponse(release=sign(self._key, self._key_id, claims, request.text), kept_text=kept)


class _Audit(AuditServiceServicer):
    async def GetTrace(self, request: Any, _: object) -> GetTraceResponse:  # noqa: N802 - gRPC's name
        assert "trace:read" in request.caller.permissions
        record = StepRecorded(request_id=request.id, tenant=request.caller.tenant, step="route")
        return GetTraceResponse(records=[ChainedRecord(record=record)])


@dataclass
class Stack:
    """The bus with everything around review."""

    server: NatsServer
    admin: Client
    settings: ServiceSettings = field(default_factory=lambda: ServiceSettings(drain_seconds=0.1))

    @asynccontextmanager
    async def review(self, **values: Any) -> AsyncIterator[ReviewServiceStub]:
        """Run the service in this process, called with the gateway's certificate."""
        settings = Settings(**{"drain_seconds": 1, "sweep_seconds": 0.05, **values})
        async with process.running("review", settings, start), rpc.channel(settings, "gateway", "review") as opened:
            yield ReviewServiceStub(opened)

    async def run(self, request_id: str, *, draft: str = "Take two <PERSON_1>.", status: str = "done", context: Any = None) -> None:
        """Store a run as the orchestrator does."""
        run = RunRecord(status=status, workflow="triage@1", vault=b"sealed")
        run.request.request_id = request_id
        run.request.caller.CopyFrom(Caller(tenant="acme", role="patient", user="pat", key_id="key-pat", permissions=["pii:read"]))
        run.request.context.update(context if context is not None else {"consent": "training"})
        run.screened_messages.append(ChatMessage(role="user", content="<PERSON_1> has a fever."))
        if draft:
            run.held.CopyFrom(HeldDraft(text=draft, origin="model", adapter="patient-answer@v1"))
        bucket = await self.admin.jetstream().key_value(RUNS)
        await bucket.put(f"acme.{request_id}", run.SerializeToString())

    async def escalate(self, request_id: str, *, seconds: float = 900, **fields: Any) -> None:
        """Publish an escalation as guardrail does."""
        values = {"reason": "urgent_symptom", "severity": "high", "rule_id": "urgent", "rule_version": "2", **fields}
        event = Escalated(request_id=request_id, trace_id="0" * 31 + "1", tenant="acme", **values)
        now = time.time()
        event.escalated_at.FromMilliseconds(int(now * 1000))
        event.deadline.FromMilliseconds(int((now + seconds) * 1000))
        at = ESCALATION.at(tenant="acme", reason=event.reason)
        await self.admin.jetstream().publish(at, encode(ESCALATION, event))

    async def queued(self, stub: ReviewServiceStub, request_id: str, **fields: Any) -> None:
        """Make a review and wait until it can be claimed."""
        await self.run(request_id, **{k: fields.pop(k) for k in ("draft", "context") if k in fields})
        await self.escalate(request_id, **fields)
        await self.until(lambda: self.item(request_id))

    async def item(self, request_id: str) -> ReviewItem | None:
        """Return a review as it is stored, or None before it is."""
        try:
            message = await self.admin.jetstream().get_msg(f"KV_{REVIEWS}", subject=f"$KV.{REVIEWS}.acme.{request_id}")
        except NoMessageError:
            return None
        return ReviewItem.FromString(message.data or b"")

    async def until(self, found: Callable[[], Any], *, within: float = 180) -> Any:
        """Wait until something is there and return it."""
        async with asyncio.timeout(within):
            while not (value := await found()):  # noqa: ASYNC110 - what is waited for is on the other side of the bus
                await asyncio.sleep(0.02)
            return value

    async def published(self, subject: Subject) -> list[Any]:
        """Return every message of a subject's stream that matches it, oldest first."""
        js, found, sequence = self.admin.jetstream(), [], 1
        while True:
            try:
                message = await js.get_msg(subject.stream, seq=sequence, subject=subject.pattern, next=True)
            except NoMessageError:
                return found
            found.append(decode(subject, message.data or b""))
            sequence = (message.seq or sequence) + 1


@pytest_asyncio.fixture
async def stack(bus: NatsServer, admin: Client) -> AsyncIterator[Stack]:
    """The bus, guardrail and audit."""
    made = Stack(bus, admin)
    async with (
        rpc_server(made.settings, "guardrail", partial(add_GuardrailServiceServicer_to_server, _Guardrail(bus.state_dir))),
        rpc_server(made.settings, "audit", partial(add_AuditServiceServicer_to_server, _Audit())),
    ):
        yield made


class Desk:
    """Asks the service as one person."""

    def __init__(self, stub: Any, caller: Caller) -> None:
        """Bind the person."""
        self._stub, self._caller = stub, caller

    async def list(self, **fields: Any) -> pb.ListReviewsResponse:
        """List reviews."""
        return await rpc.call(self._stub.ListReviews, pb.ListReviewsRequest(caller=self._caller, **fields), timeout=180)

    async def get(self, name: str) -> pb.GetReviewResponse:
        """Read one review."""
        return await rpc.call(self._stub.GetReview, pb.GetReviewRequest(caller=self._caller, request_id=name), timeout=180)

    async def claim(self, name: str) -> ReviewItem:
        """Claim one review."""
        request = pb.ClaimReviewRequest(caller=self._caller, request_id=name)
        return (await rpc.call(self._stub.ClaimReview, request, timeout=180)).item

    async def release(self, name: str) -> ReviewItem:
        """Give one review back."""
        request = pb.ReleaseReviewRequest(caller=self._caller, request_id=name)
        return (await rpc.call(self._stub.ReleaseReview, request, timeout=180)).item

    async def decide(self, name: str, decision: str, **fields: Any) -> ReviewItem:
        """Decide one review."""
        request = pb.DecideReviewRequest(caller=self._caller, request_id=name, decision=decision, **fields)
        return (await rpc.call(self._stub.DecideReview, request, timeout=180)).item

    async def settle(self, name: str, decision: str, **fields: Any) -> ReviewItem:
        """Claim and decide."""
        await self.claim(name)
        return await self.decide(name, decision, **fields)
