"""From an escalation to a review, and who has it to decide."""

import asyncio
import os
import signal
import sys

import pytest

from chassis.errors import ConflictError, InvalidArgumentError, NotFoundError, PermissionDeniedError
from contracts.streams import REVIEWS
from contracts.subjects import AUDIT, REVIEW
from strata.audit.v1.audit_events_pb2 import StepRecorded
from strata.review.v1.review_events_pb2 import Fact, ReviewItem

from .conftest import Caller, Desk, Stack, reviewer


async def test_an_escalation_becomes_one_review_with_what_the_run_knew(stack: Stack) -> None:
    """Conversation, draft, requester and consent are copied; a second rule makes it more urgent and not another review."""
    async with stack.review() as stub:
        await stack.queued(stub, "r1", severity="high")
        await stack.escalate("r1", severity="critical", rule_id="dose", reason="wrong_dose", reviewer_roles=["nurse"])
        await stack.until(lambda: _severity(stack, "r1", "critical"))
        found = await Desk(stub, reviewer()).get("r1")
        listed = await Desk(stub, reviewer()).list(status="open")

    item = found.item
    assert list(item.reviewer_roles) == ["nurse"]
    assert (item.messages[0].content, item.draft.text, item.requester.user, item.consent) == (
        "<PERSON_1> has a fever.",
        "Take two <PERSON_1>.",
        "pat",
        "training",
    )
    assert (item.vault, list(item.unpublished), [c.record.step for c in found.trace]) == (b"", [], ["route"])
    assert [(i.request_id, list(i.messages), i.draft.text) for i in listed.items] == [("r1", [], "")]
    actions = [r.details["action"] for r in await stack.published(AUDIT)]
    assert actions[0] == "queued"
    assert actions[-2:] == ["read", "listed"]


async def _severity(stack: Stack, name: str, severity: str) -> bool:
    item = await stack.item(name)
    return item.severity == severity and not item.unpublished


async def test_a_run_that_is_not_over_is_waited_for_and_looked_at_again(stack: Stack) -> None:
    """People are not kept from an escalation whose run hangs; what the run makes later is there when they look."""
    async with stack.review(run_wait_seconds=0.3) as stub:
        await stack.run("r1", status="running", draft="")
        await stack.escalate("r1")
        early = await stack.until(lambda: stack.item("r1"))
        await stack.run("r1")
        late = (await Desk(stub, reviewer()).get("r1")).item

    assert (early.run_complete, early.draft.text) == (False, "")
    assert (late.run_complete, late.draft.text) == (True, "Take two <PERSON_1>.")


async def test_a_lease_keeps_others_away_until_it_ends(stack: Stack) -> None:
    """One reviewer has it; a lease that ran out is taken over, and its holder can decide no more."""
    async with stack.review() as stub:
        await stack.queued(stub, "r1")
        ruth, tom = Desk(stub, reviewer("ruth")), Desk(stub, reviewer("tom"))
        await ruth.claim("r1")
        with pytest.raises(ConflictError) as held:
            await tom.claim("r1")
        claimable = (await tom.list(claimable=True)).items
        await _lease_ends(stack, "r1")
        taken = await tom.claim("r1")
        with pytest.raises(ConflictError) as late:
            await ruth.decide("r1", "approve")
        await tom.release("r1")
        await ruth.claim("r1")

    assert (held.value.code, late.value.code) == ("review_claimed", "review_not_claimed")
    assert [lease.reviewer for lease in taken.leases] == ["tom"]
    assert [item.request_id for item in claimable] == ["r1"]
    records = [r for r in await stack.published(AUDIT) if r.details["action"] == "claimed" and not r.code]
    assert [list(r.details["taken_over_from"]) for r in records] == [[], ["ruth"], []]


async def _lease_ends(stack: Stack, name: str) -> None:
    """Let all leases be over, as they are when their time has passed."""
    item = await stack.item(name)
    for lease in item.leases:
        lease.expires_at.FromMilliseconds(0)
    await (await stack.admin.jetstream().key_value(REVIEWS)).put(f"acme.{name}", item.SerializeToString())


async def test_nobody_reviews_what_is_not_theirs(stack: Stack) -> None:
    """The requester, another tenant, another role and a key without the right are kept out, each in its own way."""
    async with stack.review() as stub:
        await stack.queued(stub, "r1", reviewer_roles=["nurse"])
        requester = Caller(tenant="acme", role="nurse", user="pat", key_id="another", permissions=reviewer().permissions)
        with pytest.raises(PermissionDeniedError) as own:
            await Desk(stub, requester).claim("r1")
        for stranger in (reviewer(tenant="globex"), reviewer(role="shop")):
            with pytest.raises(NotFoundError):
                await Desk(stub, stranger).get("r1")
            assert not (await Desk(stub, stranger).list()).items
        powerless = Caller(tenant="acme", role="nurse", user="x", permissions=["review:read"])
        with pytest.raises(PermissionDeniedError):
            await Desk(stub, powerless).claim("r1")
        with pytest.raises(NotFoundError):
            await Desk(stub, reviewer()).claim("r1.r2 *")

    assert own.value.code == "review_own_request"
    refused = [(r.details["action"], r.code) for r in await stack.published(AUDIT) if r.outcome == "rejected"]
    assert refused == [
        ("claimed", "review_own_request"),
        *[("read", "not_found")] * 2,
        ("claimed", "permission_denied"),
        ("claimed", "not_found"),
    ]


async def test_a_list_goes_on_where_it_ended(stack: Stack) -> None:
    """Pages follow each other by key, so that what is decided meanwhile neither hides nor repeats anything."""
    async with stack.review() as stub:
        for number in range(5):
            await stack.queued(stub, f"r{number}", severity="critical" if number == 3 else "high")
        desk = Desk(stub, reviewer())
        await stack.until(lambda: _listed(desk, 5))
        first = await desk.list(limit=2)
        await desk.settle("r0", "reject")
        second = await desk.list(limit=2, cursor=first.next_cursor)
        third = await desk.list(limit=2, cursor=second.next_cursor)
        critical = await desk.list(severity="critical")
        for mistyped in ({"status": "opn"}, {"severity": "urgent"}):
            with pytest.raises(InvalidArgumentError, match="known: "):
                await desk.list(**mistyped)

    assert [[i.request_id for i in page.items] for page in (first, second, third)] == [["r0", "r1"], ["r2", "r3"], ["r4"]]
    assert (third.next_cursor, third.open, third.decided) == ("", 4, 1)
    assert [i.request_id for i in critical.items] == ["r3"]


async def _listed(desk: Desk, count: int) -> bool:
    return len((await desk.list()).items) == count


async def test_a_missed_deadline_raises_the_alarm_a_bounded_number_of_times(stack: Stack) -> None:
    """Severity goes up, an event and a record say so; after the last alarm the metric alone does. A broken review stops none of it."""
    broken = ReviewItem(request_id="r0", tenant="acme", status="open", unpublished=[Fact(record=StepRecorded(step="no step"))])
    async with stack.review(missed_deadlines=2) as stub:
        await (await stack.admin.jetstream().key_value(REVIEWS)).put("acme.r0", broken.SerializeToString())
        await stack.queued(stub, "r1", seconds=0.2, severity="medium")
        await stack.until(lambda: _missed(stack, 2))
        await asyncio.sleep(0.3)
        listed = await Desk(stub, reviewer()).list()

    item = await stack.item("r1")
    assert (item.severity, item.missed_deadlines, listed.overdue) == ("critical", 2, 2)
    assert [(e.decision, e.severity, e.missed_deadlines) for e in await stack.published(REVIEW)] == [
        ("overdue", "high", 1),
        ("overdue", "critical", 2),
    ]
    assert [r.details["action"] for r in await stack.published(AUDIT)].count("deadline_missed") == 2


async def _missed(stack: Stack, count: int) -> bool:
    item = await stack.item("r1")
    return item.missed_deadlines >= count and not item.unpublished


async def test_no_escalation_is_lost_or_doubled_when_the_process_is_killed(stack: Stack) -> None:
    """Escalations that come while the process dies are all queued once, and each queueing is on record once."""
    names = [f"r{number}" for number in range(40)]
    for name in names:
        await stack.run(name)
    command = [sys.executable, "-m", "review"]
    first = await asyncio.create_subprocess_exec(
        *command, env=os.environ | {"STRATA_REVIEW_WORKERS": "2"}, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        for name in names[:20]:
            await stack.escalate(name)
        await stack.until(lambda: stack.item("r3"))
        first.send_signal(signal.SIGKILL)
        await first.wait()
    finally:
        if first.returncode is None:
            first.kill()
    for name in names[20:]:
        await stack.escalate(name)
    before = sum([await stack.item(name) is not None for name in names])
    async with stack.review():
        for name in names:
            await stack.until(lambda name=name: _published(stack, name))

    assert before < len(names)
    queued = [r.record_id for r in await stack.published(AUDIT) if r.details["action"] == "queued"]
    assert sorted(queued) == sorted(f"acme/{name}/review/0/record" for name in names)


async def _published(stack: Stack, name: str) -> bool:
    item = await stack.item(name)
    return item is not None and not item.unpublished
