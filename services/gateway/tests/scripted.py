"""An orchestrator that answers by script over the real bus and signs with the real key; audit and inference by script too."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from nats.aio.client import Client

from chassis.errors import FailedPreconditionError, NotFoundError
from chassis.json_mapping import to_json_bytes
from chassis.messaging import Bus, Consumer, connect, decode
from chassis.provisioning import load_signing_key
from chassis.rpc import rpc_server
from chassis.settings import ServiceSettings
from contracts import keys, releases
from contracts.streams import KEYS, ORCHESTRATOR_INTERACTIVE, STATUS
from contracts.subjects import ADMITTED, AUDIT, RESPONSE
from strata.audit.v1.audit_events_pb2 import StepRecorded
from strata.audit.v1.audit_service_pb2 import (
    ChainedRecord,
    EraseSubjectRequest,
    EraseSubjectResponse,
    GetErasureRequest,
    GetErasureResponse,
    GetReceiptRequest,
    GetReceiptResponse,
    GetTraceRequest,
    GetTraceResponse,
    Hold,
    HolderState,
    LiftHoldRequest,
    LiftHoldResponse,
    ListHoldsRequest,
    ListHoldsResponse,
    SearchRecordsRequest,
    SearchRecordsResponse,
    SetHoldRequest,
    SetHoldResponse,
)
from strata.audit.v1.audit_service_pb2_grpc import AuditServiceServicer, add_AuditServiceServicer_to_server
from strata.gateway.v1.gateway_events_pb2 import RequestAdmitted, ToolCall
from strata.guardrail.v1.guardrail_service_pb2 import Release, ReleaseClaims
from strata.inference.v1.inference_service_pb2 import ListModelsResponse, ModelEntry
from strata.inference.v1.inference_service_pb2_grpc import InferenceServiceServicer, add_InferenceServiceServicer_to_server
from strata.orchestrator.v1.orchestrator_events_pb2 import Citation, Completion, ResponseReleased, StepUsage


class OtherSettings(ServiceSettings):
    """Settings of the services around the gateway."""


def completion(**changes: object) -> Completion:
    """Return a completion as a real run would write it."""
    values: dict = {
        "status": "completed",
        "finish_reason": "stop",
        "request_class": "simple_lookup",
        "tier": "small",
        "model": "smollm2",
        "adapter": "patient-answer@v1",
        "confidence": 0.9,
        "citations": [Citation(id="1", title="Fever", version="3", date="2026-01-01", quote="Rest.")],
        "verdict": "allow",
        "prompt_tokens": 30,
        "completion_tokens": 12,
        "steps": [StepUsage(step_id="answer", latency_ms=12.5, prompt_tokens=30, completion_tokens=12)],
        "cost_usd": 0.001,
        "workflow": "chat@1",
        "origin": "model",
        "latency_ms": {"total": 20.0, "answer": 12.5},
    }
    return Completion(**(values | changes))


def digest(final: Completion) -> bytes:
    """Return what guardrail signs of a completion."""
    return releases.completion_digest(json.loads(to_json_bytes(final)))


class Signer:
    """Signs as guardrail does."""

    def __init__(self, state_dir) -> None:
        self.key_id, self.key = load_signing_key(state_dir)

    def window(self, request: RequestAdmitted, sequence: int, text: str, *, final=None, calls=(), status="completed") -> ResponseReleased:
        """Return one signed window; `final` is the completion of the last one."""
        claims = ReleaseClaims(
            request_id=request.request_id,
            trace_id=request.trace_id,
            tenant=request.caller.tenant,
            sequence=sequence,
            final=final is not None,
            status=status if final is None else final.status,
        )
        if final is not None:
            claims.completion_sha256 = digest(final)
        release: Release = releases.sign(self.key, self.key_id, claims, text, calls)
        return ResponseReleased(request_id=request.request_id, trace_id=request.trace_id, release=release, completion=final)


Script = Callable[["Orchestrator", RequestAdmitted], Awaitable[None]]


async def hello(orchestrator: "Orchestrator", request: RequestAdmitted) -> None:
    """Answer in three windows."""
    for sequence, text in enumerate(("Hello", ", ")):
        await orchestrator.send(request, orchestrator.signer.window(request, sequence, text))
    await orchestrator.send(request, orchestrator.signer.window(request, 2, "world [1].", final=completion()))


@dataclass
class Orchestrator:
    """Takes admitted requests and runs the script for each."""

    bus: Bus
    signer: Signer
    script: Script = hello
    seen: list[RequestAdmitted] = field(default_factory=list)
    sent: int = 0

    async def handle(self, request: RequestAdmitted, _: object) -> None:
        """Run the script."""
        self.seen.append(request)
        await self.script(self, request)

    async def send(self, request: RequestAdmitted, response: ResponseReleased) -> None:
        """Publish a response as the orchestrator does."""
        self.sent += 1
        subject = RESPONSE.at(tenant=request.caller.tenant, request_id=request.request_id)
        await self.bus.publish(RESPONSE, subject, response, event_id=f"{request.request_id}/{self.sent}")


@asynccontextmanager
async def orchestrator(state_dir) -> AsyncIterator[Orchestrator]:
    """Run a scripted orchestrator inside the block."""
    bus = await connect(OtherSettings(), "orchestrator")
    scripted = Orchestrator(bus, Signer(state_dir))
    consumer = Consumer(bus, ORCHESTRATOR_INTERACTIVE, ADMITTED, scripted.handle, workers=32)
    task = asyncio.create_task(consumer.run())
    yield scripted
    await consumer.stop(1)
    await task
    await bus.drain()


class Audit(AuditServiceServicer):
    """Finds the records of the stream, with the one rule that counts: the caller's own tenant."""

    def __init__(self, admin: Client) -> None:
        self.admin = admin
        self.holds: dict[tuple[str, str], str] = {}
        self.governed: list[object] = []

    async def GetTrace(self, request: GetTraceRequest, context: object) -> GetTraceResponse:  # noqa: N802 - grpc's name
        """Return the records of one request."""
        found = [r for r in await records(self.admin) if request.id in (r.request_id, r.trace_id) and r.tenant == request.caller.tenant]
        if not found:
            raise NotFoundError("no such trace")
        return GetTraceResponse(records=[ChainedRecord(index=i, record=r) for i, r in enumerate(found)])

    async def GetReceipt(self, request: GetReceiptRequest, context: object) -> GetReceiptResponse:  # noqa: N802 - grpc's name
        """Return something that names who asks for what."""
        if request.request_id == "req_unknown":
            raise NotFoundError("no such request")
        return GetReceiptResponse(receipt_json=f'{{"request_id":"{request.request_id}"}}'.encode(), cose=request.caller.user.encode())

    async def SearchRecords(self, request: SearchRecordsRequest, context: object) -> SearchRecordsResponse:  # noqa: N802 - grpc's name
        """Return one record that says what was asked."""
        record = StepRecorded(step=request.step, service=request.adapter, tenant=request.caller.tenant)
        return SearchRecordsResponse(records=[ChainedRecord(index=7, hash="aa", record=record)], next_cursor=str(request.limit))

    async def EraseSubject(self, request: EraseSubjectRequest, context: object) -> EraseSubjectResponse:  # noqa: N802 - grpc's name
        """Refuse whoever is held, as the service does."""
        self.governed.append(request)
        if (request.tenant, request.subject) in self.holds:
            raise FailedPreconditionError("on legal hold", code="legal_hold")
        states = [HolderState(holder="orchestrator", ordered=1, done=1), HolderState(holder="review", ordered=1)]
        return EraseSubjectResponse(keys=3, requests=2, erasure_id="erasure/e1", holders=states)

    async def GetErasure(self, request: GetErasureRequest, context: object) -> GetErasureResponse:  # noqa: N802 - grpc's name
        """Know one erasure, that of its caller's tenant."""
        if request.erasure_id != "erasure/e1":
            raise NotFoundError("no such erasure")
        return GetErasureResponse(tenant=request.caller.tenant, holders=[HolderState(holder="review", ordered=1, done=1)])

    async def SetHold(self, request: SetHoldRequest, context: object) -> SetHoldResponse:  # noqa: N802 - grpc's name
        """Remember a hold."""
        self.governed.append(request)
        self.holds[request.tenant, request.subject] = request.reason
        return SetHoldResponse()

    async def LiftHold(self, request: LiftHoldRequest, context: object) -> LiftHoldResponse:  # noqa: N802 - grpc's name
        """Forget a hold."""
        self.governed.append(request)
        return LiftHoldResponse(lifted=self.holds.pop((request.tenant, request.subject), None) is not None)

    async def ListHolds(self, request: ListHoldsRequest, context: object) -> ListHoldsResponse:  # noqa: N802 - grpc's name
        """Return the holds of a tenant."""
        found = [Hold(tenant=t, subject_token="ab" if u else "", reason=r) for (t, u), r in self.holds.items() if t == request.tenant]
        return ListHoldsResponse(holds=found)


class Inference(InferenceServiceServicer):
    """Serves a tier and two adapters, one of them for another tenant only."""

    async def ListModels(self, request: object, context: object) -> ListModelsResponse:  # noqa: N802 - grpc's name
        """Return what can be asked for."""
        return ListModelsResponse(
            models=[
                ModelEntry(name="small", kind="tier", ready=True),
                ModelEntry(name="patient-answer@v1", kind="adapter", ready=True),
                ModelEntry(name="private@v1", kind="adapter", ready=True, tenants=["other"]),
            ]
        )


@asynccontextmanager
async def services(admin: Client) -> AsyncIterator[None]:
    """Run audit and inference inside the block."""
    settings = OtherSettings()
    async with (
        rpc_server(settings, "audit", lambda server: add_AuditServiceServicer_to_server(Audit(admin), server)),
        rpc_server(settings, "inference", lambda server: add_InferenceServiceServicer_to_server(Inference(), server)),
    ):
        yield


async def records(admin: Client, step: str = "*") -> list[StepRecorded]:
    """Return what is in the audit stream."""
    js, found = admin.jetstream(), []
    last = (await js.stream_info("AUDIT")).state.last_seq
    for sequence in range(1, last + 1):
        message = await js.get_msg("AUDIT", sequence)
        record = decode(AUDIT, message.data)
        if step in ("*", record.step):
            found.append(record)
    return found


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    """Wait until what is asked for is so."""
    async with asyncio.timeout(180):
        while not await condition():  # noqa: ASYNC110 - what is asked signals nothing
            await asyncio.sleep(0.02)


async def make_key(admin: Client, tenant: str = "acme", role: str = "app", **changes: object) -> str:
    """Store a key and return it."""
    new = keys.new_key()
    record = {
        "key_id": new.key_id,
        "digest": new.digest,
        "tenant": tenant,
        "role": role,
        "user": "u1",
        "created_at": "2026-01-01T00:00:00Z",
    }
    bucket = await admin.jetstream().key_value(KEYS)
    await bucket.put(new.key_id, json.dumps(record | changes).encode())
    return new.plain


async def set_audit(admin: Client, *, writable: bool) -> None:
    """Write what audit says of itself."""
    bucket = await admin.jetstream().key_value(STATUS)
    await bucket.put("audit", json.dumps({"writable": writable, "reason": "disk full", "at": "2026-01-01T00:00:00Z"}).encode())


def tool_call() -> ToolCall:
    """Return a call of the client's tool."""
    return ToolCall(id="call_1", name="get_weather", arguments_json='{"city": "Bern"}')
