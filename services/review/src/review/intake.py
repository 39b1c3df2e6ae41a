"""Turns an escalation into a review: what the run knows is copied, for the run's own record is kept for a day only."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import get_args

from google.protobuf import json_format
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.errors import Error as JetStreamError
from nats.js.errors import KeyNotFoundError
from nats.js.kv import KV_PURGE

from chassis.errors import InvalidArgumentError, NotFoundError, UnavailableError
from chassis.logging import bound_contextvars, get_logger
from chassis.messaging import Bus
from contracts.streams import RUNS
from contracts.subjects import InvalidTokenError, token
from review import facts
from review.publishing import settle
from review.reviewing import SEVERITIES
from review.settings import Consent, Settings
from review.store import Store, key_of
from strata.guardrail.v1.guardrail_events_pb2 import Escalated
from strata.orchestrator.v1.orchestrator_events_pb2 import RunRecord
from strata.review.v1.review_events_pb2 import ReviewItem

log = get_logger("intake")
_CONSENTS: tuple[str, ...] = get_args(Consent)
_RUNNING = "running"


def consent_of(settings: Settings, tenant: str, stated: object) -> str:
    """Return the consent class: what the request states, within what its tenant allows; else what the tenant states."""
    allowed = settings.tenant_consent.get(tenant)
    if not isinstance(stated, str) or stated not in _CONSENTS:
        return allowed or settings.default_consent
    return _CONSENTS[min(_CONSENTS.index(stated), _CONSENTS.index(allowed or "training"))]


def fill(item: ReviewItem, run: RunRecord, settings: Settings) -> None:
    """Copy from a run what people need to decide."""
    del item.messages[:]
    item.messages.extend(run.screened_messages)
    item.vault = run.vault
    item.requester.CopyFrom(run.request.caller)
    item.workflow = run.workflow
    if run.HasField("held"):
        item.draft.CopyFrom(run.held)
    context = json_format.MessageToDict(run.request.context)
    item.consent = consent_of(settings, item.tenant, context.get("consent"))
    item.run_complete = run.status != _RUNNING


class RequestErasedError(NotFoundError):
    """Nothing is kept of a request."""


class Intake:
    """Handles escalations."""

    def __init__(self, bus: Bus, store: Store, settings: Settings) -> None:
        """Bind where runs are read and reviews written."""
        self._bus, self._store, self._settings = bus, store, settings

    async def handle(self, event: Escalated, _: Msg) -> None:
        """Make the review of an escalation, once; raise UnavailableError to look again while the run is not over."""
        try:
            token(event.tenant, what="tenant"), token(event.request_id, what="request_id")
        except InvalidTokenError as error:
            raise InvalidArgumentError(str(error)) from error
        with bound_contextvars(request_id=event.request_id, tenant=event.tenant):
            try:
                run = await self.run_of(event.tenant, event.request_id)
            except RequestErasedError:
                return
            waited = time.time() - event.escalated_at.ToMilliseconds() / 1000
            if (run is None or run.status == _RUNNING) and waited < self._settings.run_wait_seconds:
                raise UnavailableError("the run is not over yet")
            await self._create(event, run)

    async def run_of(self, tenant: str, request_id: str) -> RunRecord | None:
        """Return the record of a run, or None when there is none (any more); raise RequestErasedError where the person is erased."""
        try:
            entry = await (await self._bus.js.key_value(RUNS)).get(key_of(tenant, request_id))
        except KeyNotFoundError as gone:
            if gone.op == KV_PURGE:
                raise RequestErasedError("the person whose request it was is erased") from gone
            return None
        except (TimeoutError, NatsError, JetStreamError) as error:
            raise UnavailableError(f"the run of {request_id!r} cannot be read: {error!r}") from error
        return RunRecord.FromString(entry.value or b"")

    async def complete(self, item: ReviewItem) -> ReviewItem:
        """Look again at a run that was not over when its review was made."""
        if item.run_complete or item.status != "open":
            return item
        run = await self.run_of(item.tenant, item.request_id)
        if run is None:
            return item
        return await self._store.change(key_of(item.tenant, item.request_id), lambda newest: fill(newest, run, self._settings))

    async def _create(self, event: Escalated, run: RunRecord | None) -> None:
        now = datetime.now(UTC)
        item = ReviewItem(
            request_id=event.request_id,
            trace_id=event.trace_id,
            tenant=event.tenant,
            domain=event.domain,
            status="open",
            reason=event.reason,
            severity=event.severity,
            rule_id=event.rule_id,
            rule_version=event.rule_version,
            owner=event.owner,
            reviewer_roles=event.reviewer_roles,
            reviewers=max(event.reviewers, 1),
            escalated_at=event.escalated_at,
            deadline=event.deadline,
            consent=consent_of(self._settings, event.tenant, None),
            deadline_seconds=(event.deadline.ToMilliseconds() - event.escalated_at.ToMilliseconds()) / 1000,
        )
        if run is not None:
            fill(item, run, self._settings)
        facts.add_record(item, "queued", now, {"reason": item.reason, "severity": item.severity, "reviewers": item.reviewers})
        if await self._store.create(item):
            log.info("review_queued", reason=item.reason, severity=item.severity)
            try:
                await self.run_of(event.tenant, event.request_id)
            except RequestErasedError:
                # The person was erased since the run was read.
                await self._store.purge(key_of(event.tenant, event.request_id))
                return
        else:
            item = await self._store.change(key_of(event.tenant, event.request_id), lambda known: _merge(known, item))
        await settle(self._bus, self._store, item)


def _merge(known: ReviewItem, again: ReviewItem) -> None:
    """Let a second rule for the same request make its review more urgent and those who may decide fewer, never the other way."""
    if known.status != "open" or (known.rule_id, known.rule_version) == (again.rule_id, again.rule_version):
        return
    is_graver = _rank(again.severity) > _rank(known.severity)
    if roles := _narrower(known.reviewer_roles, again.reviewer_roles, is_graver=is_graver):
        del known.reviewer_roles[:]
        known.reviewer_roles.extend(roles)
    if is_graver:
        known.severity = again.severity
    if again.deadline.ToNanoseconds() < known.deadline.ToNanoseconds() and not known.missed_deadlines:
        known.deadline.CopyFrom(again.deadline)
    known.reviewers = max(known.reviewers, again.reviewers)


def _narrower(known: Sequence[str], again: Sequence[str], *, is_graver: bool) -> list[str]:
    """Return the roles that both rules let decide; none named is all, and where they share none the graver rule's hold."""
    if not known or not again:
        return [*known, *again]
    return [role for role in known if role in again] or [*(again if is_graver else known)]


def _rank(severity: str) -> int:
    return SEVERITIES.index(severity) if severity in SEVERITIES else 0
