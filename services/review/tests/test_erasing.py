"""Nothing of an erased person stays with review, and everything of everybody else does."""

import asyncio

from chassis.erasing import record_id
from contracts.streams import RUNS
from contracts.subjects import AUDIT, ERASURE, FEEDBACK
from strata.audit.v1.audit_events_pb2 import ErasedRequest, ErasureOrdered

from .conftest import Desk, Stack, reviewer


async def test_reviews_and_examples_of_one_person_go_when_their_run_is_gone(stack: Stack) -> None:
    """The order waits while the run could still be escalated; a later escalation of what is erased makes no review."""
    order = ErasureOrdered(erasure_id="erasure/e1", tenant="acme", holder="review", part=1)
    order.requests.extend(ErasedRequest(request_id=name) for name in ("r1", "r3"))
    js = stack.admin.jetstream()
    async with stack.review() as stub:
        for name in ("r1", "r2", "r3"):
            await stack.queued(stub, name)
        await Desk(stub, reviewer()).settle("r1", "approve")
        await Desk(stub, reviewer()).settle("r2", "approve")
        await js.publish(ERASURE.at(tenant="acme", holder="review"), order.SerializeToString())
    async with stack.review() as stub:
        await stack.until(lambda: _examples(stack, {"r2"}))
        assert (await stack.item("r1")).messages
        for name in ("r1", "r3"):
            await (await js.key_value(RUNS)).purge(f"acme.{name}")
        await stack.until(lambda: _is_recorded(stack))
        await stack.escalate("r3")
        await stack.queued(stub, "r4")
        listed = await stack.until(lambda: _listed(stub, {"r2", "r4"}))

    assert [(await stack.item(name)).messages[:] for name in ("r1", "r3")] == [[], []]
    assert [item.request_id for item in listed] == ["r2", "r4"]
    assert (await stack.item("r2")).messages[0].content == "<PERSON_1> has a fever."
    for stream in ("KV_REVIEWS", "FEEDBACK"):
        assert await _mentions(stack, stream, b"r2")
        assert not await _mentions(stack, stream, b"r1")


async def _examples(stack: Stack, names: set[str]) -> bool:
    return {example.request_id for example in await stack.published(FEEDBACK)} == names


async def _is_recorded(stack: Stack) -> bool:
    wanted = record_id("erasure/e1", "review", 1)
    return any(record.record_id == wanted and record.phase == "verified" for record in await stack.published(AUDIT))


async def _listed(stub: object, names: set[str]) -> list:  # type: ignore[type-arg]
    items = (await Desk(stub, reviewer()).list()).items
    return list(items) if {item.request_id for item in items} == names else []


async def _mentions(stack: Stack, stream: str, name: bytes) -> bool:
    js, found = stack.admin.jetstream(), []
    state = (await js.stream_info(stream)).state
    for sequence in range(max(state.first_seq, 1), state.last_seq + 1):
        await asyncio.sleep(0)
        try:
            found.append((await js.get_msg(stream, seq=sequence)).data or b"")
        except Exception:  # noqa: BLE001, S112 - a place that is empty
            continue
    return any(name in body for body in found)
