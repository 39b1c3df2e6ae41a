"""What is ordered elsewhere when a person is erased, and how far that is said to be."""

import asyncio
import time
from typing import Any

import pytest
from google.protobuf import json_format
from nats.aio.client import Client

from chassis import rpc
from chassis.erasing import record_id, step_of
from chassis.errors import FailedPreconditionError, NotFoundError, PermissionDeniedError
from chassis.messaging import encode
from contracts.subjects import AUDIT, ERASURE
from strata.audit.v1 import audit_service_pb2 as pb
from strata.audit.v1.audit_events_pb2 import ErasureOrdered, StepRecorded
from strata.gateway.v1.gateway_events_pb2 import Caller

from .story import records
from .test_governing import ANN, DIGEST, OPERATOR, stub  # noqa: F401 - a fixture

HOLDERS = ("orchestrator", "review", "guardrail")


async def _orders(admin: Client) -> dict[str, ErasureOrdered]:
    js, found = admin.jetstream(), {}
    state = (await js.stream_info("ERASURES")).state
    for sequence in range(max(state.first_seq, 1), state.last_seq + 1):
        message = await js.get_msg("ERASURES", seq=sequence)
        order = ErasureOrdered.FromString(message.data or b"")
        assert message.subject == ERASURE.at(tenant="acme", holder=order.holder)
        found[order.holder] = order
    assert len(found) == state.messages
    return found


async def _publish(admin: Client, record: StepRecorded) -> None:
    await admin.jetstream().publish(AUDIT.at(tenant=record.tenant, step=record.step), encode(AUDIT, record))


async def _states(stub: Any, erasure: str, caller: Caller = OPERATOR) -> dict[str, tuple[int, int]]:  # noqa: F811 - the fixture's value
    found = await rpc.call(stub.GetErasure, pb.GetErasureRequest(caller=caller, erasure_id=erasure), timeout=180)
    return {state.holder: (state.ordered, state.done) for state in found.holders}


async def _until_states(stub: Any, erasure: str, wanted: dict[str, tuple[int, int]]) -> None:  # noqa: F811
    async with asyncio.timeout(180):
        while await _states(stub, erasure) != wanted:  # noqa: ASYNC110 - the log signals nothing
            await asyncio.sleep(0.05)


async def test_each_holder_is_ordered_what_it_needs_and_only_it_says_that_it_is_done(stub: Any, admin: Client) -> None:  # noqa: F811
    """Requests for those that keep requests, the name for the one that keeps sessions; pending until the holder's own record is logged."""
    running = StepRecorded(record_id="x/1", tenant="acme", request_id="req_runs", step="request", outcome="succeeded")
    running.user, running.session_id = "ann", "her-session"
    await _publish(admin, running)
    for received in records(1, request="req_bob", user="bob", text_sha256=DIGEST):
        await _publish(admin, json_format.ParseDict(received.record, StepRecorded()))
    erase = pb.EraseSubjectRequest(caller=OPERATOR, tenant="acme", subject="ann", reason="she asked for it")
    hold = pb.SetHoldRequest(caller=OPERATOR, tenant="acme", subject="ann", reason="case 7")
    await rpc.call(stub.SetHold, hold, timeout=180)
    with pytest.raises(FailedPreconditionError):
        await rpc.call(stub.EraseSubject, erase, timeout=180)
    assert not await _orders(admin)
    lift = pb.LiftHoldRequest(caller=OPERATOR, tenant="acme", subject="ann", reason="closed")
    await rpc.call(stub.LiftHold, lift, timeout=180)
    done = await rpc.call(stub.EraseSubject, erase, timeout=180)

    assert {state.holder: (state.ordered, state.done) for state in done.holders} == dict.fromkeys(HOLDERS, (1, 0))
    orders = await _orders(admin)
    for holder in ("orchestrator", "review"):
        assert [(one.request_id, one.HasField("open_until")) for one in orders[holder].requests] == [("req_ann", False), ("req_runs", True)]
        assert (orders[holder].user, list(orders[holder].session_ids)) == ("", [])
    assert (orders["guardrail"].user, list(orders["guardrail"].session_ids)) == ("ann", ["her-session"])
    assert orders["guardrail"].open_until.ToMilliseconds() / 1000 > time.time()
    for holder, step in (("review", "erased_guardrail"), ("guardrail", "erased_guardrail")):
        name = record_id(done.erasure_id, holder, 1)
        await _publish(admin, StepRecorded(record_id=name, tenant="acme", step=step, phase="verified"))
    await _until_states(stub, done.erasure_id, {"orchestrator": (1, 0), "review": (1, 0), "guardrail": (1, 1)})
    name = record_id(done.erasure_id, "review", 1)
    await _publish(admin, StepRecorded(record_id=name, tenant="acme", step=step_of("review"), phase="verified"))
    await _until_states(stub, done.erasure_id, {"orchestrator": (1, 0), "review": (1, 1), "guardrail": (1, 1)})
    with pytest.raises(PermissionDeniedError):
        await _states(stub, done.erasure_id, ANN)
    with pytest.raises(NotFoundError):
        await _states(stub, "erasure/none")
