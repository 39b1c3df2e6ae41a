"""The orchestrator's surroundings: a real bus, and peers that answer over real gRPC what a test scripts."""

import asyncio
import itertools
import json
import textwrap
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from chassis import process
from chassis.errors import UnavailableError
from chassis.json_mapping import to_json_bytes
from chassis.provisioning import load_signing_key
from chassis.rpc import rpc_server
from chassis.settings import ServiceSettings
from contracts.releases import completion_digest, sign
from contracts.streams import ORCHESTRATOR_INTERACTIVE
from contracts.subjects import ADMITTED, AUDIT, RESPONSE
from orchestrator import catalogue
from orchestrator.main import start
from orchestrator.settings import Settings
from strata.audit.v1.audit_events_pb2 import StepRecorded
from strata.gateway.v1.gateway_events_pb2 import Caller, ChatMessage, RequestAdmitted
from strata.guardrail.v1 import guardrail_service_pb2 as guard
from strata.guardrail.v1.guardrail_service_pb2_grpc import GuardrailServiceServicer, add_GuardrailServiceServicer_to_server
from strata.inference.v1.inference_service_pb2 import Generated, GenerateResponse, Usage
from strata.inference.v1.inference_service_pb2_grpc import InferenceServiceServicer, add_InferenceServiceServicer_to_server
from strata.orchestrator.v1.orchestrator_events_pb2 import Completion, ResponseReleased, RunRecord
from strata.retriever.v1.retriever_service_pb2 import RetrievedPassage, RetrieveResponse
from strata.retriever.v1.retriever_service_pb2_grpc import RetrieverServiceServicer, add_RetrieverServiceServicer_to_server
from strata.router.v1.router_service_pb2 import RouteResponse
from strata.router.v1.router_service_pb2_grpc import RouterServiceServicer, add_RouterServiceServicer_to_server
from strata.tool_sandbox.v1.tools_service_pb2 import InvokeResponse
from strata.tool_sandbox.v1.tools_service_pb2_grpc import ToolsServiceServicer, add_ToolsServiceServicer_to_server
from testkit.nats import NatsServer

from .declared import HEAD, TOOLS, WORKFLOWS

ALLOW = guard.DECISION_ALLOW
PASSAGES = [
    ("d1", "Return policy", "Goods can be returned within 30 days."),
    ("d2", "Opening hours", "Stores open at nine."),
]


@dataclass
class Script:
    """What the peers answer, and what they were asked."""

    words: list[str] = field(default_factory=lambda: ["Goods can be returned ", "within 30 days [1]."])
    delays: dict[str, float] = field(default_factory=dict)
    # Calls of a method, or of `word` with the number of a word, that wait for a test to let them go on.
    held: dict[str, asyncio.Event] = field(default_factory=dict)
    # How many calls of a method are taken and never answered.
    hanging: dict[str, int] = field(default_factory=dict)
    word_delay: float = 0.0
    intent: str = "policy"
    deadline_class: str = "complex"
    policy_ids: list[str] = field(default_factory=list)
    version: str = "2"
    passages: list[tuple[str, str, str]] = field(default_factory=lambda: list(PASSAGES))
    outcomes: dict[str, str] = field(default_factory=lambda: {"rerank": "done"})
    screen: Callable[[Any], tuple[int, str]] = lambda _: (ALLOW, "")
    judge: Callable[[Any], tuple[int, str]] = lambda _: (ALLOW, "")
    passage: Callable[[str, str], guard.CheckResult] = lambda _, check: guard.CheckResult(name=check)
    rules: Callable[[Any], guard.EvaluateRulesResponse] = lambda _: guard.EvaluateRulesResponse()
    failing: dict[str, int] = field(default_factory=dict)
    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    requests: dict[str, list[Any]] = field(default_factory=dict)
    running: Counter[str] = field(default_factory=Counter)
    overlaps: set[frozenset[str]] = field(default_factory=set)

    @asynccontextmanager
    async def asked(self, method: str, request: Any) -> AsyncIterator[None]:
        """Note a call, fail or wait as scripted, and see what runs beside it."""
        if hasattr(request, "request_id"):
            self.calls[method, request.request_id] += 1
        self.requests.setdefault(method, []).append(request)
        if self.failing.get(method, 0) > 0:
            self.failing[method] -= 1
            raise UnavailableError(f"{method} is away")
        self.running[method] += 1
        try:
            self.overlaps.add(frozenset(name for name, count in self.running.items() if count))
            hangs = self.hanging.get(method, 0) > 0
            self.hanging[method] = self.hanging.get(method, 0) - hangs
            if method in self.held:
                await self.held[method].wait()
            await asyncio.sleep(600 if hangs else self.delays.get(method, 0.0))
            yield
        finally:
            self.running[method] -= 1


class _Guardrail(GuardrailServiceServicer):
    def __init__(self, script: Script, state_dir: Path) -> None:
        self._script = script
        self._key_id, self._key = load_signing_key(state_dir)

    async def CheckInput(self, request: Any, _: object) -> guard.CheckInputResponse:  # noqa: N802 - gRPC's name
        async with self._script.asked("CheckInput", request):
            decision, code = self._script.screen(request)
            messages = [ChatMessage(role=m.role, content=m.content.replace("Angela", "<PERSON_1>")) for m in request.messages]
            found = {"PERSON": 1} if [m.content for m in messages] != [m.content for m in request.messages] else {}
            verdict = guard.Verdict(decision=decision, code=code, personal_data=found)
            clearance = guard.Clearance(sensitivity="personal" if found else "none", deployments=["local"], policy_ids=["cleared"])
            return guard.CheckInputResponse(
                verdict=verdict, messages=messages, vault=b"sealed", clearance=clearance, canary="c0ffee00c0ffee00", language="fr"
            )

    async def CheckOutput(self, request: Any, _: object) -> guard.CheckOutputResponse:  # noqa: N802 - gRPC's name
        async with self._script.asked("CheckOutput", request):
            decision, code = self._script.judge(request)
            response = guard.CheckOutputResponse(verdict=guard.Verdict(decision=decision, code=code))
            if decision == ALLOW:
                claims = guard.ReleaseClaims(
                    request_id=request.request_id,
                    trace_id=request.trace_id,
                    tenant=request.caller.tenant,
                    sequence=request.sequence,
                    final=request.final,
                    status=request.status,
                    reviewed=request.origin == guard.ORIGIN_REVIEWED,
                )
                if request.completion:
                    completion = Completion.FromString(request.completion)
                    completion.verdict = completion.verdict or "allow"
                    claims.completion_sha256 = completion_digest(json.loads(to_json_bytes(completion)))
                response.release.CopyFrom(sign(self._key, self._key_id, claims, request.text, request.tool_calls))
            return response

    async def Check(self, request: Any, _: object) -> guard.CheckResponse:  # noqa: N802 - gRPC's name
        async with self._script.asked("Check", request):
            found = [guard.Verdict(checks=[self._script.passage(text, name) for name in request.checks]) for text in request.texts]
            return guard.CheckResponse(results=[guard.TextVerdict(verdict=verdict) for verdict in found])

    async def EvaluateRules(self, request: Any, _: object) -> guard.EvaluateRulesResponse:  # noqa: N802 - gRPC's name
        async with self._script.asked("EvaluateRules", request):
            return self._script.rules(request)


class _Router(RouterServiceServicer):
    def __init__(self, script: Script) -> None:
        self._script = script

    async def Route(self, request: Any, _: object) -> RouteResponse:  # noqa: N802 - gRPC's name
        async with self._script.asked("Route", request):
            s = self._script
            return RouteResponse(
                request_class="simple_lookup",
                confidence=0.9,
                intent=s.intent,
                tier="mid" if s.policy_ids else "small",
                deadline_class=s.deadline_class,
                policy_ids=s.policy_ids,
            )


class _Retriever(RetrieverServiceServicer):
    def __init__(self, script: Script) -> None:
        self._script = script

    async def Retrieve(self, request: Any, _: object) -> RetrieveResponse:  # noqa: N802 - gRPC's name
        async with self._script.asked("Retrieve", request):
            passages = [
                RetrievedPassage(
                    chunk_id=f"{d}#0",
                    document_id=d,
                    collection="rules",
                    title=title,
                    text=text,
                    version=self._script.version,
                    date="2026-01-01",
                    score=0.5,
                )
                for d, title, text in self._script.passages
            ]
            return RetrieveResponse(passages=passages, encoder="minilm", outcomes=self._script.outcomes)


class _Inference(InferenceServiceServicer):
    def __init__(self, script: Script) -> None:
        self._script = script

    async def Generate(self, request: Any, _: object) -> AsyncIterator[GenerateResponse]:  # noqa: N802 - gRPC's name
        async with self._script.asked("Generate", request):
            text = "".join(self._script.words)
            # What is released already is not said again.
            for number, word in enumerate(self._script.words if not request.prefix else [text.removeprefix(request.prefix)]):
                await asyncio.sleep(self._script.word_delay)
                if f"word/{number}" in self._script.held:
                    await self._script.held[f"word/{number}"].wait()
                yield GenerateResponse(delta=word)
            usage = Usage(prompt_tokens=50, completion_tokens=len(self._script.words))
            yield GenerateResponse(
                done=Generated(text=text, finish_reason="stop", usage=usage, model="base", adapter=request.adapter, prompt=request.prompt)
            )


class _Tools(ToolsServiceServicer):
    def __init__(self, script: Script) -> None:
        self._script = script

    async def Invoke(self, request: Any, _: object) -> InvokeResponse:  # noqa: N802 - gRPC's name
        async with self._script.asked("Invoke", request):
            response = InvokeResponse(tool_version="1")
            response.rows.add().update({"product": "boots", "quantity": 3})
            return response


@dataclass
class Stack:
    """The bus with everything around the orchestrator."""

    server: NatsServer
    admin: Client
    script: Script
    repository: Path

    def write_workflow(self, name: str, text: str) -> None:
        """Declare a workflow in the test's own repository."""
        path = self.repository / "domains" / "shop" / "workflows" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"name: {name}{HEAD}{textwrap.dedent(text)}")

    @asynccontextmanager
    async def orchestrator(self, *, serve_health: bool = True, **values: Any) -> AsyncIterator[process.Runtime]:
        """Run an orchestrator in this process."""
        settings = Settings(**{"drain_seconds": 2, **values})
        declared = catalogue.load(self.repository)
        starting = partial(start, declared, settings)
        async with process.running("orchestrator", settings, starting, serve_health=serve_health) as runtime:
            yield runtime

    async def ask(self, request_id: str, text: str = "May I return boots?", *, workflow: str = "desk", **fields: Any) -> None:
        """Publish a request as the gateway would."""
        request = RequestAdmitted(
            request_id=request_id,
            trace_id="0" * 31 + "1",
            caller=fields.pop("caller", Caller(tenant="acme", role="app", permissions=["request:create"])),
            model=workflow,
            workflow=workflow,
            messages=[ChatMessage(role="user", content=text)],
            **{"request_class": "interactive", **fields},
        )
        request.received_at.GetCurrentTime()
        at = ADMITTED.at(request_class=request.request_class, tenant=request.caller.tenant)
        await self.admin.jetstream().publish(at, request.SerializeToString(), headers={"Nats-Msg-Id": request_id})

    async def windows(self, request_id: str) -> list[ResponseReleased]:
        """Return all that the client was told so far."""
        js, subject, sequence = self.admin.jetstream(), RESPONSE.at(tenant="acme", request_id=request_id), 1
        found = []
        while True:
            try:
                message = await js.get_msg("RESPONSES", seq=sequence, subject=subject, next=True)
            except NotFoundError:
                return found
            found.append(_parse(RESPONSE, message.data))
            sequence = message.seq + 1

    async def answer(self, request_id: str, *, within: float = 180) -> list[ResponseReleased]:
        """Wait until the answer is complete; return its windows."""
        async with asyncio.timeout(within):
            while True:
                windows = await self.windows(request_id)
                if windows and (windows[-1].HasField("completion") or windows[-1].error_code):
                    return windows
                await asyncio.sleep(0.02)

    async def until(self, condition: Callable[[], bool], *, within: float = 180) -> None:
        """Wait until something is true."""
        async with asyncio.timeout(within):
            for _ in iter(condition, True):
                await asyncio.sleep(0.005)

    async def audit(self, request_id: str) -> list[StepRecorded]:
        """Return the audit records of a request, oldest first."""
        return [record for record in await self.all_audits() if record.request_id == request_id]

    async def all_audits(self) -> list[StepRecorded]:
        """Return all audit records, oldest first."""
        js, found, sequence = self.admin.jetstream(), [], 1
        while True:
            try:
                message = await js.get_msg("AUDIT", seq=sequence, subject="strata.v1.audit.acme.*", next=True)
            except NotFoundError:
                return found
            found.append(_parse(AUDIT, message.data))
            sequence = message.seq + 1

    async def record(self, request_id: str) -> RunRecord:
        """Return the run record as it is stored."""
        message = await self.admin.jetstream().get_msg("KV_RUNS", subject=f"$KV.RUNS.acme.{request_id}")
        return RunRecord.FromString(message.data or b"")

    async def lease_lasts(self, seconds: float) -> None:
        """Let what an owner does not acknowledge come again after another time than in production."""
        js = self.admin.jetstream()
        config = (await js.consumer_info(ORCHESTRATOR_INTERACTIVE.stream, ORCHESTRATOR_INTERACTIVE.name)).config
        config.ack_wait = seconds
        await js.add_consumer(ORCHESTRATOR_INTERACTIVE.stream, config)

    async def idle(self, *, within: float = 180) -> None:
        """Wait until no admitted request is left."""
        async with asyncio.timeout(within):
            for _ in itertools.count():
                if not (await self.admin.jetstream().stream_info("REQUESTS")).state.messages:
                    return
                await asyncio.sleep(0.02)


def _parse(subject: Any, data: bytes | None) -> Any:
    from chassis.messaging import decode

    return decode(subject, data or b"")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one domain for tests."""
    shop = tmp_path / "home" / "domains" / "shop"
    (shop / "prompts").mkdir(parents=True)
    (shop / "workflows").mkdir()
    (shop / "domain.yaml").write_text("name: shop\ncollections: [{name: rules}, {name: policies}]\n")
    (shop / "tools.yaml").write_text(TOOLS)
    (shop / "policy.yaml").write_text("version: '1'\noverrides: [{id: vip, when: context.vip, set: {tier: mid}}]\n")
    (shop / "prompts" / "answer@v1.yaml").write_text("name: answer@v1\nmax_tokens: 80\n")
    (shop / "prompts" / "chat@v1.yaml").write_text("name: chat@v1\npassthrough: true\nmax_tokens: 80\n")
    monkeypatch.setenv("STRATA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest_asyncio.fixture
async def stack(bus: NatsServer, admin: Client, repository: Path) -> AsyncIterator[Stack]:
    """A bus, scripted peers behind mutual TLS, and the workflows of the tests."""
    script = Script()
    stack = Stack(bus, admin, script, repository)
    for name, text in WORKFLOWS.items():
        stack.write_workflow(name, text)
    settings = ServiceSettings(drain_seconds=0.1)
    servers: dict[str, Callable[[Any], None]] = {
        "guardrail": partial(add_GuardrailServiceServicer_to_server, _Guardrail(script, bus.state_dir)),
        "router": partial(add_RouterServiceServicer_to_server, _Router(script)),
        "retriever": partial(add_RetrieverServiceServicer_to_server, _Retriever(script)),
        "inference": partial(add_InferenceServiceServicer_to_server, _Inference(script)),
        "tool_sandbox": partial(add_ToolsServiceServicer_to_server, _Tools(script)),
    }
    async with AsyncExitStack() as running:
        for name, register in servers.items():
            await running.enter_async_context(rpc_server(settings, name, register))
        yield stack
