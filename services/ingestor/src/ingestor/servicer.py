"""Answers gRPC calls; only translates."""

import asyncio
from collections.abc import Container, Mapping
from typing import Any

from prometheus_client import Counter

from chassis.errors import NotFoundError
from chassis.rpc import Context
from ingestor import admission, wire
from ingestor.announcing import Announcer
from ingestor.catalogue import Collection
from ingestor.library import Library
from ingestor.operations import Operations
from ingestor.reviews import due, due_documents
from ingestor.uploads import Uploads
from knowledge.index import Holding, Index
from strata.ingestor.v1 import knowledge_service_pb2 as pb
from strata.ingestor.v1.knowledge_service_pb2_grpc import KnowledgeServiceServicer

CHANGES = Counter("strata_knowledge_changes_total", "Changes of the indexes over gRPC.", ["collection", "change"])


class KnowledgeServicer(KnowledgeServiceServicer):
    """The contract over one library."""

    def __init__(
        self,
        collections: Mapping[str, Collection],
        library: Library,
        index: Index,
        announcer: Announcer,
        uploads: Uploads,
        operations: Operations,
        *,
        fed: Container[str] = (),
    ) -> None:
        """Answer for the library; what tables feed, the names in `fed`, is not changed by hand."""
        self._collections, self._library, self._index, self._announcer = collections, library, index, announcer
        self._uploads, self._operations, self._fed = uploads, operations, fed

    async def PutDocument(self, request: pb.PutDocumentRequest, context: Context) -> pb.PutDocumentResponse:  # noqa: ARG002, N802 - the name in the contract
        """Store one version; it is searchable when this returns."""
        document = wire.to_document(self._to_change(request.collection), request.document)
        admission.check_sent(document)
        (outcome,) = await asyncio.to_thread(self._library.put, [document])
        if outcome.refusal is not None:
            raise outcome.refusal
        if outcome.change is not None:
            CHANGES.labels(collection=request.collection, change="upserted").inc()
            await self._announcer.flush()
        return wire.to_put_response(outcome)

    async def UploadDocument(self, request_iterator: Any, context: Context) -> pb.UploadDocumentResponse:  # noqa: ARG002, N802
        """Store one version that is sent as a file; it is searchable when this returns."""
        return await self._uploads.take(request_iterator)

    async def DeleteDocument(self, request: pb.DeleteDocumentRequest, context: Context) -> pb.DeleteDocumentResponse:  # noqa: ARG002, N802
        """Delete a fluid document or withdraw an anchored version; nobody finds it when this returns."""
        collection = self._to_change(request.collection)

        def remove() -> bool:
            return self._library.remove(
                collection.kind,
                collection.name,
                request.document_id,
                tenant=request.tenant,
                version=request.version,
                reason=request.reason,
            )

        changed = await asyncio.to_thread(remove)
        if changed:
            CHANGES.labels(collection=request.collection, change="deleted").inc()
            await self._announcer.flush()
        return pb.DeleteDocumentResponse(changed=changed)

    async def ListCollections(self, request: pb.ListCollectionsRequest, context: Context) -> pb.ListCollectionsResponse:  # noqa: ARG002, N802
        """Return what each declared collection holds."""
        holdings = await asyncio.to_thread(self._index.holdings)
        statuses = [wire.to_status(c, holdings.get(c.name, Holding(0, 0))) for c in self._collections.values()]
        return pb.ListCollectionsResponse(collections=statuses, encoder=self._index.encoder)

    async def ListDueReviews(self, request: pb.ListDueReviewsRequest, context: Context) -> pb.ListDueReviewsResponse:  # noqa: ARG002, N802
        """Return the collections and documents whose review is due."""
        today = wire.to_day(request.on)
        collections = list(self._collections.values())
        documents = await asyncio.to_thread(due_documents, collections, self._index, today)
        return pb.ListDueReviewsResponse(due=[wire.to_due(entry) for entry in [*due(collections, today), *documents]])

    async def GetStatus(self, request: pb.GetStatusRequest, context: Context) -> pb.GetStatusResponse:  # noqa: ARG002, N802
        """Return how fresh each source is and what each collection holds."""
        return await self._operations.status()

    async def Reconcile(self, request: pb.ReconcileRequest, context: Context) -> pb.ReconcileResponse:  # noqa: ARG002, N802
        """Compare source, ledger and index now and mend what differs."""
        return await self._operations.reconcile(request.source)

    async def ProveDeletion(self, request: pb.ProveDeletionRequest, context: Context) -> pb.ProveDeletionResponse:  # noqa: ARG002, N802
        """Tell where a document was looked for and since when it is not there."""
        return await self._operations.prove_deletion(request)

    async def Reembed(self, request: pb.ReembedRequest, context: Context) -> pb.ReembedResponse:  # noqa: ARG002, N802
        """Switch to another encoder, or go back."""
        return await self._operations.reembed(request)

    async def Prune(self, request: pb.PruneRequest, context: Context) -> pb.PruneResponse:  # noqa: ARG002, N802
        """Give up the way back to the encoder before, and drop every table that is not searched."""
        return await self._operations.prune()

    def _to_change(self, name: str) -> Collection:
        collection = self._collection(name)
        admission.check_by_hand(name, self._fed)
        return collection

    def _collection(self, name: str) -> Collection:
        if name not in self._collections:
            raise NotFoundError(f"unknown collection {name!r}; known: {sorted(self._collections)}")
        return self._collections[name]
