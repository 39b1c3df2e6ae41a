"""Applies the hard rules that hand a request to a person; no model has a say in them."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from chassis.errors import NotFoundError
from chassis.logging import get_logger
from chassis.messaging import Bus
from chassis.policy import Escalation, Policy, RuleFailedError
from contracts.subjects import AUDIT, ESCALATION
from strata.audit.v1.audit_events_pb2 import StepRecorded
from strata.gateway.v1.gateway_events_pb2 import Caller
from strata.guardrail.v1.guardrail_events_pb2 import Escalated

log = get_logger("guardrail")
_DEFAULT_MESSAGE = "A person will look at your message before you get an answer."


@dataclass(frozen=True)
class Subject:
    """The request that rules look at."""

    request_id: str
    trace_id: str
    caller: Caller
    domain: str


class Rules:
    """The escalation rules of every domain; the first that holds decides."""

    def __init__(self, policies: Mapping[str, Policy], *, default_deadline_seconds: float) -> None:
        """Take policies that were read already."""
        self._policies = policies
        self._default = default_deadline_seconds

    @property
    def policies(self) -> Mapping[str, Policy]:
        """Policies by domain."""
        return self._policies

    def decide(self, domain: str, facts: Mapping[str, Any]) -> Escalation | None:
        """Return the rule that demands a person, or None; raise NotFoundError for a domain without policy."""
        policy = self._policies.get(domain)
        if policy is None:
            raise NotFoundError(f"no policy for domain {domain!r}; known: {sorted(self._policies)}", code="domain_not_found")
        for rule in policy.escalation:
            try:
                if rule.looks_at(facts.get("stage")) and rule.holds(facts):
                    return rule
            except RuleFailedError as error:
                # Nobody knows what the rule would have said, and a person is the safe reader.
                log.warning("escalation_rule_failed", domain=domain, rule=rule.id, error=str(error))
                return rule
        return self._declared(policy, facts)

    def _declared(self, policy: Policy, facts: Mapping[str, Any]) -> Escalation | None:
        """Return the rule for a reason that a workflow's own step declared: the policy's words for it, or plain ones."""
        declared = facts.get("escalation")
        reason = declared.get("reason") if isinstance(declared, Mapping) else None
        if not isinstance(reason, str) or not reason:
            return None
        for rule in policy.escalation:
            if rule.reason == reason:
                return rule
        return Escalation(
            id=f"workflow-{reason.replace('_', '-')}",
            version=policy.version,
            owner="workflow",
            when="true",
            reason=reason,
            severity="high",
            deadline_seconds=self._default,
            message=_DEFAULT_MESSAGE,
        )


async def announce(bus: Bus, subject: Subject, rule: Escalation) -> None:
    """Publish that a person must decide, then record it; a repeat of the same request and rule is stored once."""
    now = datetime.now(UTC)
    key = f"{subject.request_id}/{rule.id}"
    event = Escalated(
        request_id=subject.request_id,
        trace_id=subject.trace_id,
        tenant=subject.caller.tenant,
        reason=rule.reason,
        severity=rule.severity,
        rule_id=rule.id,
        rule_version=rule.version,
        domain=subject.domain,
        owner=rule.owner,
        reviewers=rule.reviewers,
        reviewer_roles=rule.roles,
    )
    event.deadline.FromDatetime(now + timedelta(seconds=rule.deadline_seconds))
    event.escalated_at.FromDatetime(now)
    at = ESCALATION.at(tenant=subject.caller.tenant, reason=rule.reason)
    await bus.publish(ESCALATION, at, event, event_id=key, about=subject.request_id)
    record_id = hashlib.sha256(f"escalate/{key}".encode()).hexdigest()[:32]
    await bus.publish(
        AUDIT, AUDIT.at(tenant=subject.caller.tenant, step="escalate"), _record(subject, rule, record_id, now), event_id=record_id
    )


def _record(subject: Subject, rule: Escalation, record_id: str, now: datetime) -> StepRecorded:
    record = StepRecorded(
        record_id=record_id,
        tenant=subject.caller.tenant,
        request_id=subject.request_id,
        trace_id=subject.trace_id,
        service="guardrail",
        step="escalate",
        attempt=1,
        outcome="succeeded",
        code=rule.reason,
    )
    record.started_at.FromDatetime(now)
    record.details.update(
        {
            "domain": subject.domain,
            "rule_id": rule.id,
            "rule_version": rule.version,
            "owner": rule.owner,
            "severity": rule.severity,
            "deadline_seconds": rule.deadline_seconds,
            "reviewers": rule.reviewers,
        }
    )
    return record
