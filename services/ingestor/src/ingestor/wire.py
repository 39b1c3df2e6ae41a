"""Between protobuf and the domain."""

import datetime as dt

from chassis.errors import InvalidArgumentError
from chassis.rpc import to_time
from ingestor import versions
from ingestor.catalogue import Collection
from ingestor.library import Outcome
from ingestor.reviews import Due
from knowledge.index import Holding
from knowledge.schema import Document
from strata.ingestor.v1 import knowledge_service_pb2 as pb


def to_document(collection: Collection, message: pb.Document) -> Document:
    """Return the document of a request, with the collection's defaults."""
    return Document(
        collection=collection.name,
        kind=collection.kind,
        document_id=message.id,
        title=message.title,
        text=message.text,
        version=message.version,
        effective_from=to_time(message.effective_from, "effective_from") if message.HasField("effective_from") else None,
        expires_at=to_time(message.expires_at, "expires_at") if message.HasField("expires_at") else None,
        tenant=message.tenant,
        labels=tuple(message.labels) or collection.labels,
        metadata=dict(message.metadata),
        source=message.source,
        licence=message.licence or collection.licence,
        chunker=collection.chunker,
    )


def to_put_response(outcome: Outcome) -> pb.PutDocumentResponse:
    """Return what a put answers."""
    return pb.PutDocumentResponse(
        changed=outcome.change is not None,
        chunks=outcome.chunks,
        supersedes=outcome.supersedes,
        version=versions.normalised(outcome.document).version,
    )


def to_status(collection: Collection, holding: Holding) -> pb.CollectionStatus:
    """Return the state of one collection."""
    return pb.CollectionStatus(
        name=collection.name,
        kind=collection.kind.value,
        documents=holding.documents,
        chunks=holding.chunks,
        owner=collection.owner,
        review_date=collection.review_date,
        licence=collection.licence,
    )


def to_day(value: str) -> dt.date:
    """Return the day that a request names, or today."""
    try:
        return dt.date.fromisoformat(value) if value else dt.datetime.now(dt.UTC).date()
    except ValueError as error:
        raise InvalidArgumentError(f"field 'on' must be a date, got {value[:40]!r}") from error


def to_due(entry: Due) -> pb.DueReview:
    """Return one review that is due."""
    return pb.DueReview(
        collection=entry.collection,
        document_id=entry.document_id,
        tenant=entry.tenant,
        version=entry.version,
        owner=entry.owner,
        review_date=entry.review_date.isoformat(),
        days_over=entry.days_over,
    )
