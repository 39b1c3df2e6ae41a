"""Tells everybody what changed, once it is searchable and as often as it takes."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial

from google.protobuf.struct_pb2 import Struct

from chassis.errors import UnavailableError
from chassis.logging import get_logger
from chassis.messaging import Bus
from contracts.subjects import AUDIT, KNOWLEDGE
from ingestor.ledger import Change, Ledger
from ingestor.library import Library
from strata.audit.v1.audit_events_pb2 import StepRecorded
from strata.ingestor.v1.ingestor_events_pb2 import KnowledgeChanged

log = get_logger("ingestor")
# Documents of all tenants are recorded under the operator's own.
OPERATOR = "strata"
_AT_ONCE = 50


class Announcer:
    """Publishes the change events and audit records that the ledger still holds."""

    def __init__(self, bus: Bus, ledger: Ledger, library: Library, *, flush_seconds: float) -> None:
        """Publish on `bus`; a repeat after a crash carries the same identifiers."""
        self._bus, self._ledger, self._library = bus, ledger, library
        self._flush_seconds = flush_seconds
        self._lock = asyncio.Lock()

    async def flush(self) -> None:
        """Publish what is pending, oldest first; what the bus does not take stays pending."""
        async with self._lock:
            pending = await asyncio.to_thread(self._ledger.pending, done=True)
            for first in range(0, len(pending), _AT_ONCE):
                group = pending[first : first + _AT_ONCE]
                results = await asyncio.gather(*(self._announce(change) for change in group), return_exceptions=True)
                sent = [change for change, result in zip(group, results, strict=True) if result is None]
                await asyncio.to_thread(self._ledger.drop, sent)
                failed = [result for result in results if result is not None]
                if failed:
                    log.warning("announcement_delayed", pending=len(pending) - first - len(sent), error=repr(failed[0]))
                    return

    async def run(self) -> None:
        """Let versions take effect, flush and tidy again and again, until cancelled."""
        while True:
            await asyncio.sleep(self._flush_seconds)
            with suppress(UnavailableError):
                await asyncio.to_thread(lambda: self._library.take_effect(datetime.now(UTC)))
                await self.flush()
            # An index that is away is tidied when it is back; the process goes on.
            with suppress(UnavailableError):
                await asyncio.to_thread(partial(self._library.tidy, patient=True))

    async def refused(self, collection: str, document_id: str, message: str, code: str) -> None:
        """Leave an audit record of a document that could not be taken in."""
        details = Struct()
        details.update({"collection": collection, "document_id": document_id, "message": message})
        record = StepRecorded(
            tenant=OPERATOR, service="ingestor", step="knowledge", attempt=1, outcome="rejected", code=code, details=details
        )
        record.record_id = f"knowledge-refused/{collection}/{document_id}/{datetime.now().astimezone().isoformat()}"
        record.started_at.GetCurrentTime()
        with suppress(UnavailableError):
            await self._bus.publish(AUDIT, AUDIT.at(tenant=OPERATOR, step="knowledge"), record, event_id=record.record_id)

    async def _announce(self, change: Change) -> None:
        event, record = _event(change), _record(change)
        subject = KNOWLEDGE.at(kind=change.kind, event=change.change)
        await self._bus.publish(KNOWLEDGE, subject, event, event_id=f"knowledge/{change.change_id}", about=change.document_id)
        at = AUDIT.at(tenant=record.tenant, step=record.step)
        await self._bus.publish(AUDIT, at, record, event_id=record.record_id, about=change.document_id)


def _event(change: Change) -> KnowledgeChanged:
    event = KnowledgeChanged(
        collection=change.collection,
        document_id=change.document_id,
        version=change.in_force,
        superseded_version=change.no_longer,
        change=change.change,
        index_version=change.index_version,
    )
    event.searchable_at.FromJsonString(change.at)
    return event


def _record(change: Change) -> StepRecorded:
    details = Struct()
    details.update({
        "collection": change.collection,
        "document_id": change.document_id,
        "change": change.change,
        "version": change.version,
        "in_force": change.in_force,
        "superseded": change.supersedes,
        "chunks": change.chunks,
        "document_sha256": change.document_sha256,
        "index_version": change.index_version,
        "reason": change.reason,
    })  # fmt: skip
    record = StepRecorded(
        record_id=f"audit/knowledge/{change.change_id}",
        tenant=change.tenant or OPERATOR,
        service="ingestor",
        step="knowledge",
        attempt=1,
        outcome="succeeded",
        details=details,
    )
    record.started_at.FromJsonString(change.at)
    return record
