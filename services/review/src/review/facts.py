"""What a change of a review makes true, for the audit log, for subscribers and for training."""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from chassis.messaging import canonical_json
from review.reviewers import name_of
from strata.audit.v1.audit_events_pb2 import StepRecorded
from strata.gateway.v1.gateway_events_pb2 import Caller
from strata.review.v1.review_events_pb2 import ExampleCollected, Fact, Judgement, ReviewDecided, ReviewItem

STEP = "review"
# Classes of consent that allow an example.
CONSENTED = frozenset({"internal", "training"})


def step_record(
    *,
    record_id: str,
    tenant: str,
    request_id: str,
    trace_id: str,
    now: datetime,
    code: str = "",
    user: str = "",
    details: Mapping[str, Any],
) -> StepRecorded:
    """Return a record for the audit log."""
    record = StepRecorded(
        record_id=record_id,
        tenant=tenant,
        request_id=request_id,
        trace_id=trace_id,
        service="review",
        step=STEP,
        attempt=1,
        outcome="rejected" if code else "succeeded",
        code=code,
        user=user,
    )
    record.started_at.FromDatetime(now)
    record.details.update(dict(details))
    return record


def who(caller: Caller) -> dict[str, Any]:
    """Return how the record names a caller."""
    return {"reviewer": name_of(caller), "role": caller.role, "key_id": caller.key_id}


def add_record(item: ReviewItem, action: str, now: datetime, details: Mapping[str, Any]) -> None:
    """Add the record of a change to what the item has to publish."""
    event_id = _event_id(item, "record")
    record = step_record(
        record_id=event_id,
        tenant=item.tenant,
        request_id=item.request_id,
        trace_id=item.trace_id,
        now=now,
        user=item.requester.user,
        details={"action": action, "rule_id": item.rule_id, "rule_version": item.rule_version, **details},
    )
    item.unpublished.append(Fact(event_id=event_id, record=record))


def add_event(item: ReviewItem, decision: str, now: datetime, labels: list[str]) -> None:
    """Add the event of a decision, a label or a missed deadline."""
    event = ReviewDecided(
        request_id=item.request_id,
        trace_id=item.trace_id,
        tenant=item.tenant,
        decision=decision,
        reason=item.reason,
        severity=item.severity,
        rule_id=item.rule_id,
        labels=labels,
        reviewers=len(votes(item)),
        agreement=item.agreement,
        seconds=now.timestamp() - item.escalated_at.ToMilliseconds() / 1000,
        missed_deadlines=item.missed_deadlines,
    )
    event.decided_at.FromDatetime(now)
    item.unpublished.append(Fact(event_id=_event_id(item, decision), decided=event))


def add_example(item: ReviewItem) -> None:
    """Add the example to learn from, where consent allows one and there is something to learn."""
    draft = item.draft.text
    if item.consent not in CONSENTED or not item.messages or not (item.text or draft):
        return
    chosen = item.text
    if item.decision == "correct":
        chosen = next((b.kept_text for b in votes(item) if (b.decision, b.text) == ("correct", item.text)), "")
        if not chosen:
            # Nobody could tell what of it is personal.
            return
    example = ExampleCollected(
        request_id=item.request_id,
        trace_id=item.trace_id,
        tenant=item.tenant,
        domain=item.domain,
        workflow=item.workflow,
        consent=item.consent,
        messages=item.messages,
        chosen=chosen,
        rejected="" if item.decision == "approve" else draft,
        decision=item.decision,
        labels=labels_of(item),
        reviewers=len(votes(item)),
        agreement=item.agreement,
        reason=item.reason,
        rule_id=item.rule_id,
        rule_version=item.rule_version,
        adapter=item.draft.adapter,
        revision=item.changes,
    )
    example.decided_at.CopyFrom(item.decided_at)
    item.unpublished.append(Fact(event_id=_event_id(item, "example"), example=example))


def votes(item: ReviewItem) -> list[Judgement]:
    """Return the judgements that decide, in the order in which they came."""
    return [judgement for judgement in item.judgements if judgement.decision != "label"]


def labels_of(item: ReviewItem) -> list[str]:
    """Return every label once."""
    return sorted({label for judgement in item.judgements for label in judgement.labels})


def spelled_out(judgement: Judgement) -> dict[str, Any]:
    """Return a judgement for the record; a text is named by its digest."""
    return {
        "reviewer": judgement.reviewer,
        "role": judgement.role,
        "decision": judgement.decision,
        "labels": list(judgement.labels),
        "comment": judgement.comment,
        "text_sha256": hashlib.sha256(judgement.text.encode()).hexdigest() if judgement.text else "",
        "nonce": judgement.nonce,
    }


def commitment(judgement: Judgement) -> str:
    """Return the digest that binds a reviewer to a judgement without showing it."""
    return hashlib.sha256(canonical_json(spelled_out(judgement))).hexdigest()


def _event_id(item: ReviewItem, kind: str) -> str:
    return f"{item.tenant}/{item.request_id}/review/{item.changes}/{kind}"
