"""The life of a review: leases, judgements, agreement, deadlines. Each change also says what it made true."""

import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from chassis.errors import ConflictError, InvalidArgumentError, PermissionDeniedError
from review import facts
from review.agreement import majority, share
from review.reviewers import is_requester, name_of
from review.settings import Settings
from strata.gateway.v1.gateway_events_pb2 import Caller
from strata.review.v1.review_events_pb2 import Judgement, ReviewItem

DECISIONS = ("approve", "correct", "reject", "label")
SEVERITIES = ("low", "medium", "high", "critical")
# Where people cannot agree, the most careful of them decides.
_STRICTEST = ("reject", "correct", "approve")
# A review is one value of the bus.
_MOST_LABELLINGS = 50


@dataclass(frozen=True)
class Statement:
    """What a reviewer says."""

    decision: str
    text: str = ""
    labels: tuple[str, ...] = ()
    comment: str = ""
    nonce: str = field(default_factory=lambda: secrets.token_hex(16))
    # The text without personal data.
    kept_text: str = ""


def claim(item: ReviewItem, caller: Caller, now: datetime, settings: Settings) -> None:
    """Give the caller a lease or prolong it; raise ConflictError while others have it, or when it is over."""
    _require_open(item, caller)
    me, expired = name_of(caller), [lease.reviewer for lease in item.leases if _expired(lease.expires_at.ToDatetime(now.tzinfo), now)]
    others = [lease for lease in item.leases if lease.reviewer not in {me, *expired}]
    if len(others) + len(facts.votes(item)) >= item.reviewers:
        raise ConflictError("others have it to decide now", code="review_claimed")
    del item.leases[:]
    item.leases.extend(others)
    lease = item.leases.add(reviewer=me, key_id=caller.key_id)
    lease.expires_at.FromDatetime(now + timedelta(seconds=settings.lease_seconds))
    taken_over = [name for name in expired if name != me]
    facts.add_record(item, "claimed", now, {**facts.who(caller), "seconds": settings.lease_seconds, "taken_over_from": taken_over})


def release(item: ReviewItem, caller: Caller, now: datetime) -> None:
    """Take the caller's lease back; raise ConflictError when there is none."""
    mine = [lease for lease in item.leases if lease.reviewer == name_of(caller)]
    if not mine:
        raise ConflictError("there is no lease to give back", code="review_not_claimed")
    item.leases.remove(mine[0])
    facts.add_record(item, "released", now, facts.who(caller))


def check(item: ReviewItem, caller: Caller, said: Statement, now: datetime) -> None:
    """Raise what forbids this caller to say so now."""
    if said.decision not in DECISIONS:
        raise InvalidArgumentError(f"unknown decision {said.decision!r}; known: {list(DECISIONS)}")
    if bool(said.text.strip()) != (said.decision == "correct"):
        raise InvalidArgumentError("a correction needs a text, and nothing else has one")
    if said.decision == "label":
        if is_requester(item, caller):
            raise PermissionDeniedError("nobody reviews a request of their own", code="review_own_request")
        if not said.labels:
            raise InvalidArgumentError("give at least one label")
        if sum(judgement.decision == "label" for judgement in item.judgements) >= _MOST_LABELLINGS:
            raise InvalidArgumentError(f"a review is labelled {_MOST_LABELLINGS} times at most")
        return
    _require_open(item, caller)
    held = [lease for lease in item.leases if lease.reviewer == name_of(caller)]
    if not held or _expired(held[0].expires_at.ToDatetime(now.tzinfo), now):
        raise ConflictError("claim the review first", code="review_not_claimed")
    if said.decision == "approve" and not item.draft.text:
        raise InvalidArgumentError("there is no draft to approve", code="review_without_draft")


def judge(item: ReviewItem, caller: Caller, said: Statement, now: datetime, settings: Settings) -> None:
    """Take what a reviewer says; end the review where enough say the same, ask for one more where they do not."""
    check(item, caller, said, now)
    judgement = Judgement(
        reviewer=name_of(caller),
        role=caller.role,
        decision=said.decision,
        text=said.text,
        labels=said.labels,
        comment=said.comment,
        nonce=said.nonce,
        kept_text=said.kept_text,
    )
    judgement.decided_at.FromDatetime(now)
    item.judgements.append(judgement)
    if said.decision == "label":
        _label(item, caller, judgement, now)
        return
    kept = [lease for lease in item.leases if lease.reviewer != judgement.reviewer]
    del item.leases[:]
    item.leases.extend(kept)
    facts.add_record(item, "judged", now, {**facts.who(caller), "commitment_sha256": facts.commitment(judgement)})
    said_so_far = [vote.decision for vote in facts.votes(item)]
    if len(said_so_far) < item.reviewers:
        return
    final = majority(said_so_far)
    if final is None and item.extra_reviewers < settings.extra_reviewers:
        item.reviewers += 1
        item.extra_reviewers += 1
        item.changes += 1
        facts.add_record(item, "disagreement", now, {"reviewers": item.reviewers})
        return
    _settle(item, final or next(name for name in _STRICTEST if name in said_so_far), now)


def _label(item: ReviewItem, caller: Caller, judgement: Judgement, now: datetime) -> None:
    decided = item.status == "decided"
    shown = {"labels": list(judgement.labels)} if decided else {"commitment_sha256": facts.commitment(judgement)}
    facts.add_record(item, "labelled", now, {**facts.who(caller), **shown})
    if decided:
        facts.add_event(item, "label", now, list(judgement.labels))
        facts.add_example(item)


def _settle(item: ReviewItem, final: str, now: datetime) -> None:
    ballots = facts.votes(item)
    item.status, item.decision = "decided", final
    item.text = item.draft.text if final == "approve" else next((b.text for b in ballots if b.decision == final and b.text), "")
    item.agreement = share([ballot.decision for ballot in ballots], final)
    item.decided_at.FromDatetime(now)
    del item.leases[:]
    item.changes += 1
    spoken = [facts.spelled_out(judgement) for judgement in item.judgements]
    facts.add_record(item, "decided", now, {"decision": final, "agreement": item.agreement, "judgements": spoken})
    facts.add_event(item, final, now, facts.labels_of(item))
    facts.add_example(item)


def miss_deadline(item: ReviewItem, now: datetime, settings: Settings) -> bool:
    """Raise the alarm for a deadline that has passed; return whether one had, and there was an alarm left."""
    due = item.deadline.ToDatetime(now.tzinfo)
    if item.status != "open" or due > now or item.missed_deadlines >= settings.missed_deadlines:
        return False
    place = SEVERITIES.index(item.severity) if item.severity in SEVERITIES else len(SEVERITIES) - 2
    before, item.severity = item.severity, SEVERITIES[min(place + 1, len(SEVERITIES) - 1)]
    item.missed_deadlines += 1
    item.deadline.FromDatetime(now + timedelta(seconds=max(item.deadline_seconds, 1.0)))
    facts.add_record(item, "deadline_missed", now, {"severity": item.severity, "before": before, "missed": item.missed_deadlines})
    facts.add_event(item, "overdue", now, [])
    return True


def _require_open(item: ReviewItem, caller: Caller) -> None:
    if is_requester(item, caller):
        raise PermissionDeniedError("nobody reviews a request of their own", code="review_own_request")
    if item.reviewers > 1 and not caller.user:
        # Two keys without a name may be one person's.
        raise PermissionDeniedError("several people must decide, and this key names nobody")
    if item.status != "open" or any(vote.reviewer == name_of(caller) for vote in facts.votes(item)):
        raise ConflictError("the review is decided, or you have decided", code="review_decided")


def _expired(until: datetime, now: datetime) -> bool:
    return until <= now
