"""What people decide, how far they agree, and what follows from it."""

import asyncio
import hashlib
import signal
import sys
from typing import Any

import pytest

from chassis import rpc
from chassis.errors import ConflictError, InvalidArgumentError, PermissionDeniedError, ServiceError
from chassis.messaging import canonical_json, encode
from chassis.tasks import in_time
from contracts.subjects import AUDIT, FEEDBACK, REVIEW
from review.agreement import krippendorff_alpha
from review.intake import consent_of
from review.settings import Settings
from strata.gateway.v1.gateway_events_pb2 import Caller
from strata.review.v1 import review_service_pb2 as pb
from strata.review.v1.review_events_pb2 import Fact, ReviewDecided
from strata.review.v1.review_service_pb2_grpc import ReviewServiceStub

from .conftest import Desk, Stack, reviewer


def test_alpha_is_that_of_the_textbook() -> None:
    """The nominal example of Krippendorff (2011), section C, has alpha 0.743 over its 11 pairable units."""
    units = ["111", "2232", "3333", "3333", "2222", "1234", "4444", "1121", "2222", "555", "11", "3"]
    alpha, rated = krippendorff_alpha(units)

    assert rated == 11
    assert alpha == pytest.approx(0.743, abs=0.0005)
    assert krippendorff_alpha(["aa", "aa"]) == (None, 2)


async def test_one_reviewer_approves_and_it_is_over(stack: Stack) -> None:
    """Event, record and example follow; a repeat of the same judgement changes nothing, another one is refused."""
    async with stack.review() as stub:
        await stack.queued(stub, "r1")
        ruth = Desk(stub, reviewer())
        with pytest.raises(ConflictError):
            await ruth.decide("r1", "approve")
        done = await ruth.settle("r1", "approve", labels=["good", "good"])
        again = await ruth.decide("r1", "approve", labels=["good"])
        with pytest.raises(ConflictError) as other:
            await ruth.decide("r1", "reject")
        listed = await ruth.list(status="decided")

    assert (done.status, done.decision, done.text, done.agreement) == ("decided", "approve", "Take two <PERSON_1>.", 1.0)
    assert again.judgements == done.judgements
    assert (other.value.code, listed.decided) == ("review_decided", 1)
    (event,) = await stack.published(REVIEW)
    assert (event.decision, event.reviewers, list(event.labels)) == ("approve", 1, ["good"])
    (example,) = await stack.published(FEEDBACK)
    assert (example.chosen, example.rejected, example.consent) == ("Take two <PERSON_1>.", "", "training")
    assert not (await stack.item("r1")).unpublished


async def test_two_reviewers_do_not_see_each_other_and_a_third_settles_it(stack: Stack) -> None:
    """Before all have spoken the log holds digests alone; afterwards it holds the judgements that fit them."""
    async with stack.review() as stub:
        await stack.queued(stub, "r1", reviewers=2)
        ruth, tom, una = (Desk(stub, reviewer(name)) for name in ("ruth", "tom", "una"))
        nameless = Caller(tenant="acme", role="nurse", key_id="k", permissions=["review:decide"])
        with pytest.raises(PermissionDeniedError):
            await Desk(stub, nameless).claim("r1")
        await ruth.settle("r1", "correct", text="Pat Roe, call the nurse.", comment="dose")
        blind = (await tom.get("r1")).item
        own = (await ruth.get("r1")).item
        open_still = await tom.settle("r1", "reject")
        early = [r for r in await stack.published(AUDIT) if r.details["action"] == "judged"]
        done = await una.settle("r1", "correct", text="Please call the nurse now.")

    assert (list(blind.judgements), [j.reviewer for j in own.judgements]) == ([], ["ruth"])
    assert (open_still.status, open_still.reviewers, [j.reviewer for j in open_still.judgements]) == ("open", 3, ["tom"])
    assert all("decision" not in record.details for record in early)
    assert (done.decision, done.text, round(done.agreement, 2)) == ("correct", "Pat Roe, call the nurse.", 0.67)
    assert not any(judgement.kept_text for judgement in done.judgements)
    (decided,) = [r for r in await stack.published(AUDIT) if r.details["action"] == "decided"]
    spoken = [dict(judgement) for judgement in decided.details["judgements"]]
    digests = [hashlib.sha256(canonical_json({**j, "labels": list(j["labels"])})).hexdigest() for j in spoken]
    assert digests[:2] == [record.details["commitment_sha256"] for record in early]
    (example,) = await stack.published(FEEDBACK)
    assert (example.chosen, example.rejected, example.reviewers) == ("<PERSON_1>, call the nurse.", "Take two <PERSON_1>.", 3)


async def test_people_who_cannot_agree_leave_it_to_the_most_careful(stack: Stack) -> None:
    """The number of reviewers that disagreement adds is bounded; then the strictest decision holds."""
    async with stack.review(extra_reviewers=1) as stub:
        await stack.queued(stub, "r1", reviewers=2)
        await Desk(stub, reviewer("a")).settle("r1", "approve")
        await Desk(stub, reviewer("b")).settle("r1", "correct", text="No.")
        done = await Desk(stub, reviewer("c")).settle("r1", "reject")

    assert (done.status, done.decision, done.text) == ("decided", "reject", "")


async def test_what_cannot_be_decided_so_is_refused(stack: Stack) -> None:
    """No draft to approve, a text that may not leave, a correction without text: the review stays open and claimed."""
    async with stack.review() as stub:
        await stack.queued(stub, "r1", draft="")
        ruth = Desk(stub, reviewer())
        await ruth.claim("r1")
        codes = []
        for decision, text in (("approve", ""), ("correct", "a forbidden word"), ("correct", " "), ("reject", "why"), ("maybe", "")):
            with pytest.raises(InvalidArgumentError) as refused:
                await ruth.decide("r1", decision, text=text)
            codes.append(refused.value.code)
        with pytest.raises(InvalidArgumentError):
            await ruth.decide("r1", "label", labels=["Not A Label"])
        done = await ruth.decide("r1", "correct", text="Please come in.")

    assert codes == ["review_without_draft", "review_text_refused", *["invalid_request"] * 3]
    assert (done.status, done.text) == ("decided", "Please come in.")


async def test_labels_that_come_later_replace_the_example(stack: Stack) -> None:
    """A label decides nothing; on a decided review it is an event, and the export holds the last revision only."""
    async with stack.review() as stub:
        await stack.queued(stub, "r1")
        await stack.queued(stub, "r2", context={"consent": "none"})
        ruth, tom = Desk(stub, reviewer("ruth")), Desk(stub, reviewer("tom"))
        labelled = await tom.decide("r1", "label", labels=["fever"])
        await ruth.settle("r1", "correct", text="Rest.")
        await tom.decide("r1", "label", labels=["late"])
        await ruth.settle("r2", "approve")
        caller = Caller(tenant="system", user="op", permissions=["review:export"])
        request = pb.ExportExamplesRequest(caller=caller)
        examples = [found.example async for found in rpc.stream(stub.ExportExamples, request, timeout=180)]
        with pytest.raises(PermissionDeniedError):
            _ = [x async for x in rpc.stream(stub.ExportExamples, pb.ExportExamplesRequest(caller=reviewer()), timeout=180)]

    assert labelled.status == "open"
    assert [e.decision for e in await stack.published(REVIEW)] == ["correct", "label", "approve"]
    assert [(e.request_id, list(e.labels)) for e in examples] == [("r1", ["fever", "late"])]
    assert [r.details["action"] for r in await stack.published(AUDIT)].count("exported") == 1


def test_a_request_may_state_less_consent_than_its_tenant_never_more() -> None:
    """Without a statement the tenant's class holds; without one of the tenant's, none."""
    settings = Settings(tenant_consent={"acme": "internal"})

    assert consent_of(settings, "acme", None) == "internal"
    assert consent_of(settings, "acme", "training") == "internal"
    assert consent_of(settings, "acme", "none") == "none"
    assert consent_of(settings, "globex", "training") == "training"
    assert consent_of(settings, "globex", "everything") == "none"


async def test_what_a_crash_kept_from_the_bus_is_published_once(stack: Stack) -> None:
    """A decision that was written and not told, or told and not noted, is told exactly once after the restart."""
    async with stack.review() as stub:
        await stack.queued(stub, "r1")
    item = await stack.item("r1")
    untold = ReviewDecided(request_id="r1", tenant="acme", decision="approve")
    told = ReviewDecided(request_id="r1", tenant="acme", decision="reject")
    item.unpublished.extend([Fact(event_id="acme/r1/a", decided=untold), Fact(event_id="acme/r1/b", decided=told)])
    js = stack.admin.jetstream()
    await js.publish(REVIEW.at(tenant="acme", decision="reject"), encode(REVIEW, told), headers={"Nats-Msg-Id": "acme/r1/b"})
    await (await js.key_value("REVIEWS")).put("acme.r1", item.SerializeToString())
    async with stack.review():
        await stack.until(lambda: _settled(stack))

    assert sorted(e.decision for e in await stack.published(REVIEW)) == ["approve", "reject"]


async def _settled(stack: Stack) -> bool:
    return not (await stack.item("r1")).unpublished


async def test_no_decision_is_lost_or_told_twice_when_the_process_is_killed(stack: Stack) -> None:
    """What a reviewer was told is decided has its event, once, and so has whatever was decided while nobody could be told."""
    names = [f"r{number}" for number in range(30)]
    async with stack.review():
        for name in names:
            await stack.run(name)
            await stack.escalate(name)
        for name in names:
            await stack.until(lambda name=name: stack.item(name))
    acknowledged: set[str] = set()
    running = await asyncio.create_subprocess_exec(sys.executable, "-m", "review", stdout=asyncio.subprocess.DEVNULL)
    try:
        async with rpc.channel(stack.settings, "gateway", "review") as opened:
            desk = Desk(ReviewServiceStub(opened), reviewer())

            waiting = iter(names)

            async def decide() -> None:
                # One after the other, so that most are left when the first is done, however long it takes to hear of that.
                for name in waiting:
                    await desk.settle(name, "approve")
                    acknowledged.add(name)
                    done.set()

            done = asyncio.Event()
            await stack.until(lambda: _answers(desk))
            work = [asyncio.create_task(decide()) for _ in range(5)]
            await in_time(180, done.wait())
            running.send_signal(signal.SIGKILL)
            await asyncio.gather(*work, return_exceptions=True)
    finally:
        if running.returncode is None:
            running.kill()
        await running.wait()
    async with stack.review():
        items = {name: await stack.until(lambda name=name: _told(stack, name)) for name in names}

    decided = {name for name, item in items.items() if item.status == "decided"}
    assert acknowledged
    assert acknowledged <= decided
    assert len(decided) < len(names)
    assert sorted(event.request_id for event in await stack.published(REVIEW)) == sorted(decided)
    assert sorted(example.request_id for example in await stack.published(FEEDBACK)) == sorted(decided)


async def _answers(desk: Desk) -> bool:
    try:
        return bool((await desk.list()).items)
    except ServiceError:
        return False


async def _told(stack: Stack, name: str) -> Any:
    item = await stack.item(name)
    return None if item.unpublished else item
