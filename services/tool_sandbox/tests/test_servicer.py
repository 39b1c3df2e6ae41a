"""The service over real gRPC with mutual TLS and a real bus."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf import json_format
from grpc import StatusCode, aio
from nats.aio.client import Client

from chassis.errors import ServiceError
from chassis.process import running
from chassis.rpc import call, channel
from strata.audit.v1.audit_events_pb2 import StepRecorded
from strata.gateway.v1.gateway_events_pb2 import Caller
from strata.tool_sandbox.v1.tools_service_pb2 import InvokeRequest, ListToolsRequest
from strata.tool_sandbox.v1.tools_service_pb2_grpc import ToolsServiceStub
from tool_sandbox.main import NAME, create_sandbox, start
from tool_sandbox.settings import Settings
from tool_sandbox.wire import to_attempt

from .conftest import TOOLS, write_domain


@pytest_asyncio.fixture
async def settings(bus: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings that point at the test's bus, state and domains."""
    write_domain(tmp_path, [{**one, "timeout_seconds": 10.0} for one in TOOLS])
    monkeypatch.setenv("STRATA_HOME", str(tmp_path))
    return Settings()


@pytest_asyncio.fixture
async def stub(settings: Settings) -> AsyncIterator[Any]:
    """The running service, called as the orchestrator."""
    async with running(NAME, settings, partial(start, create_sandbox(settings)), serve_health=False), _client(settings) as client:
        yield client


@asynccontextmanager
async def _client(settings: Settings, me: str = "orchestrator") -> AsyncIterator[Any]:
    async with channel(settings, me, NAME) as opened:
        yield ToolsServiceStub(opened)


def request(tool: str, *, role: str = "clerk", tenant: str = "acme", call_id: str = "r1/tool", **arguments: Any) -> InvokeRequest:
    """Return one call of the test's domain."""
    message = InvokeRequest(
        request_id="r1", trace_id="0" * 32, caller=Caller(tenant=tenant, role=role), domain="shop", tool=tool, call_id=call_id
    )
    message.arguments.update(arguments)
    return message


async def records(admin: Client, count: int) -> list[StepRecorded]:
    """Return the first audit records of the tenant `acme`."""
    subscription = await admin.jetstream().subscribe("strata.v1.audit.acme.tool", ordered_consumer=True)
    messages = [await subscription.next_msg(timeout=180) for _ in range(count)]
    return [json_format.Parse(message.data, StepRecorded()) for message in messages]


async def test_a_tool_answers_and_is_recorded(stub: Any, admin: Client) -> None:
    """Rows come back with the tool's version; the record names the arguments without their values."""
    response = await call(stub.Invoke, request("find_things", name="lamp"), timeout=180)

    record = (await records(admin, 1))[0]
    assert [dict(row) for row in response.rows] == [{"thing_id": "T-3", "name": "lamp"}]
    assert response.tool_version == "1"
    assert (record.outcome, record.service, record.step, record.request_id) == ("succeeded", "tool_sandbox", "tool", "r1")
    assert dict(record.details)["rows"] == 1
    assert "lamp" not in json_format.MessageToJson(record)


@pytest.mark.parametrize(
    ("tool", "role", "arguments", "code"),
    [
        ("fly", "clerk", {}, "tool_unknown"),
        ("find_things", "visitor", {"name": "a"}, "tool_not_allowed"),
        ("find_things", "clerk", {"colour": "red"}, "tool_arguments_invalid"),
    ],
)
async def test_a_refused_call_is_an_error_and_a_record(
    stub: Any, admin: Client, tool: str, role: str, arguments: dict[str, Any], code: str
) -> None:
    """The caller gets the stable code, and the audit log says who tried what."""
    with pytest.raises(ServiceError) as refusal:
        await call(stub.Invoke, request(tool, role=role, **arguments), timeout=180)

    record = (await records(admin, 1))[0]
    assert refusal.value.code == code
    assert (record.outcome, record.code) == ("rejected", code)
    assert (record.details["tool"], record.details["role"]) == (tool, role)


async def test_a_repeated_write_is_recorded_once(stub: Any, admin: Client) -> None:
    """The second attempt of a call replays the result; the stream keeps one record of it."""
    first = await call(stub.Invoke, request("take_thing", who="ann", thing_id="T-1"), timeout=180)
    again = await call(stub.Invoke, request("take_thing", who="ann", thing_id="T-1"), timeout=180)
    await call(stub.Invoke, request("find_things", call_id="r1/find", name="lamp"), timeout=180)

    seen = await records(admin, 3)
    assert (first.changed, first.replayed, again.changed, again.replayed) == (1, False, 1, True)
    assert [(record.step_id, record.phase) for record in seen] == [("tool", "attempted"), ("tool", "verified"), ("find", "")]


async def test_an_effect_that_ends_without_an_outcome_is_reported_as_unknown(settings: Settings, admin: Client) -> None:
    """What a killed process had begun is on record as attempted, and the next start says that nobody knows what became of it."""
    folder = settings.state_dir / NAME / "attempts"
    attempted = to_attempt(request("take_thing", who="ann", thing_id="T-1"), version="1")
    child = (
        "import sys; from pathlib import Path; from tool_sandbox.attempts import *; "
        "Attempts(Path(sys.argv[1])).begin(StepRecorded.FromString(bytes.fromhex(sys.argv[2])))"
    )
    command = [sys.executable, "-c", child, str(folder), attempted.SerializeToString().hex()]
    await asyncio.to_thread(subprocess.run, command, check=True)
    for _ in range(2):
        async with running(NAME, settings, partial(start, create_sandbox(settings)), serve_health=False), _client(settings) as stub:
            await call(stub.Invoke, request("take_thing", who="ann", thing_id="T-1"), timeout=180)

    assert [(record.outcome, record.phase) for record in await records(admin, 3)] == [
        ("unknown", "unknown"), ("unknown", "attempted"), ("succeeded", "verified"),
    ]  # fmt: skip
    assert list(folder.iterdir()) == []


async def test_the_callers_deadline_holds(stub: Any, admin: Client) -> None:
    """A call with less time than the tool's own limit ends in time and is recorded as failed."""
    with pytest.raises(ServiceError) as late:
        await call(stub.Invoke, request("count_for_ever"), timeout=1)

    record = (await records(admin, 1))[0]
    assert late.value.code in {"tool_timeout", "internal_error", "deadline_exceeded"}
    assert (record.outcome, record.code) == ("failed", "tool_timeout")


async def test_nothing_runs_that_cannot_be_recorded(settings: Settings, bus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the bus a call fails, because its record could not be kept."""
    monkeypatch.setenv("STRATA_TOOL_SANDBOX_NATS__REQUEST_TIMEOUT_SECONDS", "1")
    impatient = Settings()
    async with running(NAME, impatient, partial(start, create_sandbox(impatient)), serve_health=False), _client(impatient) as stub:
        bus.kill()
        with pytest.raises(ServiceError) as failure:
            await call(stub.Invoke, request("find_things", name="lamp"), timeout=180)

    assert failure.value.status is StatusCode.UNAVAILABLE


async def test_a_tenant_that_could_widen_a_subject_is_refused(stub: Any) -> None:
    """A tenant name with a wildcard never reaches the bus."""
    with pytest.raises(ServiceError) as refusal:
        await call(stub.Invoke, request("find_things", tenant="*", name="lamp"), timeout=180)

    assert refusal.value.code == "invalid_request"


async def test_a_role_sees_only_its_own_tools(stub: Any) -> None:
    """The list holds the tools of the role with their schemas, and nothing for a role without tools."""
    manager = await call(stub.ListTools, ListToolsRequest(caller=Caller(role="manager")), timeout=180)
    nobody = await call(stub.ListTools, ListToolsRequest(caller=Caller(role="visitor"), domain="shop"), timeout=180)

    assert [(tool.domain, tool.name) for tool in manager.tools] == [("shop", "break_down")]
    assert json.loads(manager.tools[0].parameters_json)["additionalProperties"] is False
    assert list(nobody.tools) == []


async def test_another_services_certificate_is_refused(stub: Any, settings: Settings) -> None:
    """Only the orchestrator and the operator's command line may call tools."""
    async with _client(settings, me="router") as stranger:
        with pytest.raises(ServiceError) as refusal:
            await call(stranger.Invoke, request("find_things", name="lamp"), timeout=180)

    assert refusal.value.code == "permission_denied"
    assert refusal.value.status is StatusCode.PERMISSION_DENIED
    assert isinstance(refusal.value.__cause__, aio.AioRpcError)
