"""What operators ask of the knowledge: how it is, whether it is what the sources say, what was deleted, another encoder."""

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from prometheus_client import Gauge

from chassis.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError
from ingestor.catalogue import Collection
from ingestor.cdc.drift import Drift
from ingestor.cdc.health import SourceHealth
from ingestor.deletions import Place
from ingestor.encoders_in_use import EncoderSwitch
from ingestor.postgres import SourceStatus
from ingestor.reviews import due
from knowledge.index import Holding
from knowledge.switching import Switchable
from strata.ingestor.v1 import knowledge_service_pb2 as pb

# Retriever asks for the status every few seconds, so that it is never older than that.
DOCUMENTS = Gauge("strata_knowledge_documents", "Documents and versions by what they are to a query.", ["source", "collection", "state"])


class Feeding(Protocol):
    """What takes change events in."""

    def status(self) -> list[SourceHealth]:
        """Return the health of every source."""
        ...

    def watermarks(self) -> dict[str, int]:
        """Return the place up to which each collection is searchable."""
        ...

    async def reconcile(self, source: str = "") -> Drift:
        """Compare and mend now."""
        ...


class Operations:
    """Answers for `strata knowledge`, in the contract's own types."""

    def __init__(
        self,
        collections: Mapping[str, Collection],
        pair: Switchable,
        encoders: EncoderSwitch,
        look_for: Callable[[str, str, str], list[Place]],
        look_in_answers: Callable[[str, str, str], Awaitable[Place]],
        *,
        backend: str,
        feed: Feeding | None = None,
        replications: Sequence[Callable[[], SourceStatus]] = (),
    ) -> None:
        """Look at `pair`; without `feed` no source of change events is declared."""
        self._collections, self._pair, self.encoders, self._look_for = collections, pair, encoders, look_for
        self._look_in_answers = look_in_answers
        self._backend, self._feed, self._replications = backend, feed, tuple(replications)

    async def status(self) -> pb.GetStatusResponse:
        """Return the health of every source and collection."""
        holdings = await asyncio.to_thread(self._pair.holdings)
        positions = self._feed.watermarks() if self._feed else {}
        late = {entry.collection for entry in due(list(self._collections.values()), dt.datetime.now(dt.UTC).date())}
        health = self._feed.status() if self._feed else []
        _measure(holdings, {name: source.name for source in health for name in source.collections})
        slots = {status.name: status for status in (ask() for ask in self._replications)}
        return pb.GetStatusResponse(
            sources=[_source(source, slots.get(source.name)) for source in health],
            collections=[
                _collection(name, holdings.get(name, Holding(0, 0)), positions.get(name, 0), review_due=name in late)
                for name in self._collections
            ],
            encoder=self._pair.encoder,
            backend=self._backend,
            index_versions=await asyncio.to_thread(self._pair.versions),
            fragments=await asyncio.to_thread(self._pair.fragments),
        )

    async def reconcile(self, source: str) -> pb.ReconcileResponse:
        """Compare source, ledger and index now, and mend what differs."""
        if self._feed is None:
            raise FailedPreconditionError("no source of change events is declared", code="no_sources")
        if source and source not in (known := sorted(health.name for health in self._feed.status())):
            raise NotFoundError(f"unknown source {source!r}; known: {known}")
        found = await self._feed.reconcile(source)
        return pb.ReconcileResponse(
            missing=found.missing,
            surplus=found.surplus,
            stale=found.stale,
            repaired=found.repaired,
            embedded=found.embedded,
            buckets=found.buckets,
            differing=found.differing,
        )

    async def prove_deletion(self, request: pb.ProveDeletionRequest) -> pb.ProveDeletionResponse:
        """Look for a document wherever it could be."""
        if request.collection not in self._collections:
            raise NotFoundError(f"unknown collection {request.collection!r}; known: {sorted(self._collections)}")
        if not request.document_id:
            raise InvalidArgumentError("field 'document_id' is empty")
        named = (request.collection, request.document_id, request.tenant)
        places = [*await asyncio.to_thread(self._look_for, *named), await self._look_in_answers(*named)]
        response = pb.ProveDeletionResponse(absent=all(place.absent for place in places))
        for place in places:
            entry = response.places.add(place=place.name, absent=place.absent)
            if place.since is not None:
                entry.since.FromDatetime(place.since)
            if place.until is not None:
                entry.until.FromDatetime(place.until)
        if recorded := [place.since for place in places if place.since is not None and place.decides]:
            response.deleted_at.FromDatetime(max(recorded))
        return response

    async def reembed(self, request: pb.ReembedRequest) -> pb.ReembedResponse:
        """Switch to another encoder, or go back."""
        if request.rollback and request.directory:
            raise InvalidArgumentError("give either 'directory' or 'rollback'")
        switched = await asyncio.to_thread(self.encoders.back if request.rollback else lambda: self.encoders.to(request.directory))
        return pb.ReembedResponse(
            encoder=switched.now.encoder,
            previous=switched.before.encoder,
            documents=switched.report.documents,
            embedded=switched.report.embedded,
            recall_before=switched.report.recall_before,
            recall_after=switched.report.recall_after,
        )

    async def prune(self) -> pb.PruneResponse:
        """Drop every table that is not searched."""
        return pb.PruneResponse(dropped=await asyncio.to_thread(self.encoders.prune))


def _measure(holdings: Mapping[str, Holding], sources: Mapping[str, str]) -> None:
    for name, holding in holdings.items():
        counts = {
            "current": holding.documents,
            "superseded": holding.superseded,
            "expired": holding.expired,
            "withdrawn": holding.withdrawn,
        }
        for state, count in counts.items():
            DOCUMENTS.labels(source=sources.get(name, ""), collection=name, state=state).set(count)


def _source(health: SourceHealth, slot: SourceStatus | None) -> pb.SourceStatus:
    driver = f"{slot.error_code}: {slot.error}" if slot is not None and slot.error_code else ""
    status = pb.SourceStatus(
        name=health.name,
        state=slot.state if slot is not None and health.state != "lost" else health.state,
        collections=health.collections,
        position=health.position,
        lag_p50_seconds=health.lag.p50,
        lag_p95_seconds=health.lag.p95,
        lag_p99_seconds=health.lag.p99,
        sla_seconds=health.sla_seconds,
        sla_holds=health.sla_holds,
        slot_lag_bytes=(slot.slot_lag_bytes or 0) if slot is not None else 0,
        applied=health.applied,
        dead=health.dead,
        embedded=health.embedded,
        without_vector=health.without_vector,
        missing=health.drift.missing,
        surplus=health.drift.surplus,
        stale=health.drift.stale,
        problem=health.problem or driver,
    )
    if health.last_change_at is not None:
        status.last_change_at.FromDatetime(health.last_change_at)
    if health.reconciled_at is not None:
        status.reconciled_at.FromDatetime(health.reconciled_at)
    return status


def _collection(name: str, holding: Holding, position: int, *, review_due: bool) -> pb.CollectionHealth:
    return pb.CollectionHealth(
        name=name,
        documents=holding.documents,
        chunks=holding.chunks,
        superseded=holding.superseded,
        expired=holding.expired,
        withdrawn=holding.withdrawn,
        review_due=review_due,
        position=position,
    )
