"""Tells each tenant which of its answers rest on a version that is no longer in force."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from nats.aio.msg import Msg

from audit.view import Answer, View
from chassis.messaging import Bus, Consumer
from contracts.streams import AUDIT_OUTDATED
from contracts.subjects import KNOWLEDGE, OUTDATED
from strata.audit.v1.audit_events_pb2 import AnswersOutdated
from strata.ingestor.v1.ingestor_events_pb2 import KnowledgeChanged

# A message holds this many answers; more of them are counted and found by their citations in the log.
_MOST_NAMED = 1000


@asynccontextmanager
async def announcing(bus: Bus, view: Callable[[], View], *, drain_seconds: float) -> AsyncIterator[None]:
    """Read changes of the knowledge until the block ends; `view` raises UnavailableError while the log is not open."""

    async def handle(change: KnowledgeChanged, _: Msg) -> None:
        if not change.superseded_version:
            return
        for event in outdated(change, await asyncio.to_thread(view().answers, change.document_id, change.superseded_version)):
            what = f"{change.collection}/{change.document_id}/{change.superseded_version}/{change.index_version}"
            identifier, subject = f"outdated/{event.tenant}/{what}", OUTDATED.at(tenant=event.tenant)
            await bus.publish(OUTDATED, subject, event, event_id=identifier, about=change.document_id)

    consumer = Consumer(bus, AUDIT_OUTDATED, KNOWLEDGE, handle, workers=2)
    task = asyncio.create_task(consumer.run())
    try:
        yield
    finally:
        await consumer.stop(drain_seconds)
        await asyncio.gather(task, return_exceptions=True)


def outdated(change: KnowledgeChanged, answers: list[Answer]) -> list[AnswersOutdated]:
    """Return one event for each tenant that has such answers; nobody learns of another tenant's."""
    by_tenant: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        by_tenant[answer.tenant].append(answer)
    return [
        AnswersOutdated(
            tenant=tenant,
            collection=change.collection,
            document_id=change.document_id,
            superseded_version=change.superseded_version,
            version=change.version,
            request_ids=[answer.request_id for answer in mine[-_MOST_NAMED:]],
            answers=len(mine),
            superseded_at=change.searchable_at,
        )
        for tenant, mine in sorted(by_tenant.items())
    ]
