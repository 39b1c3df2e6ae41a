"""Reading the log over real gRPC."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from nats.aio.client import Client

from audit.main import start
from audit.segments import list_segments
from audit.settings import Settings
from chassis import rpc
from chassis.errors import InternalError, InvalidArgumentError, NotFoundError
from chassis.process import running
from strata.audit.v1.audit_service_pb2 import GetTraceRequest, VerifyRequest
from strata.audit.v1.audit_service_pb2_grpc import AuditServiceStub
from strata.gateway.v1.gateway_events_pb2 import Caller
from testkit.nats import NatsServer

from .running import publish, until_acknowledged


@pytest_asyncio.fixture
async def stub(bus: NatsServer, admin: Client) -> AsyncIterator[Any]:
    """The service with fourteen records of seven requests, as the gateway calls it."""
    settings = Settings(min_free_bytes=0)
    async with running("audit", settings, start), rpc.channel(settings, "gateway", "audit") as channel:
        await publish(admin, 1, 14)
        await until_acknowledged(admin)
        yield AuditServiceStub(channel)


async def test_a_trace_is_shown_to_its_tenant(stub: Any) -> None:
    """The records of a request come in order, each with its place in the log."""
    answer = await rpc.call(stub.GetTrace, GetTraceRequest(id="r3", caller=Caller(tenant="acme")), timeout=180)

    assert [chained.record.record_id for chained in answer.records] == ["x/3", "x/10"]
    assert all(len(chained.hash) == 64 for chained in answer.records)


async def test_another_tenant_finds_nothing(stub: Any) -> None:
    """An id of somebody else looks like one that does not exist."""
    with pytest.raises(NotFoundError):
        await rpc.call(stub.GetTrace, GetTraceRequest(id="r3", caller=Caller(tenant="other")), timeout=180)
    with pytest.raises(NotFoundError):
        await rpc.call(stub.GetTrace, GetTraceRequest(id="r99", caller=Caller(tenant="acme")), timeout=180)


async def test_an_auditor_sees_all_tenants(stub: Any) -> None:
    """The permission audit:all lifts the limit of the tenant."""
    caller = Caller(tenant="other", permissions=["audit:all"])

    assert len((await rpc.call(stub.GetTrace, GetTraceRequest(id="r3", caller=caller), timeout=180)).records) == 2


async def test_an_empty_id_is_refused(stub: Any) -> None:
    """Nobody gets records by leaving the id out."""
    with pytest.raises(InvalidArgumentError):
        await rpc.call(stub.GetTrace, GetTraceRequest(caller=Caller(tenant="acme")), timeout=180)


async def test_verify_finds_what_was_changed_under_the_running_service(stub: Any, bus: NatsServer) -> None:
    """A record that was edited on the disk is named, and is not shown as if it were true."""
    before = await rpc.call(stub.Verify, VerifyRequest(), timeout=180)
    segment = list_segments(bus.state_dir / "audit")[0]
    segment.write_bytes(segment.read_bytes().replace(b'"x/10"', b'"x/99"'))

    after = await rpc.call(stub.Verify, VerifyRequest(), timeout=180)

    assert (before.intact, before.size) == (True, 14)
    assert not after.intact
    assert f"record {after.first_bad_index}" in after.problem
    with pytest.raises(InternalError, match="damaged"):
        await rpc.call(stub.GetTrace, GetTraceRequest(id="r3", caller=Caller(tenant="acme")), timeout=180)
