"""Between protobuf and the domain."""

import datetime as dt

from knowledge.visibility import Visibility
from retriever.fusion import Candidate
from retriever.retrieval import Found
from strata.retriever.v1 import retriever_service_pb2 as pb


def to_visibility(request: pb.RetrieveRequest, now: dt.datetime) -> Visibility:
    """Return what the caller of a request may see."""
    return Visibility(
        tenant=request.caller.tenant,
        labels=frozenset(request.caller.labels),
        collections=tuple(request.collections),
        at=request.as_of.ToDatetime(tzinfo=dt.UTC) if request.HasField("as_of") else now,
        filters=dict(request.filters),
        version=request.version,
        positions=dict(request.positions),
    )


def to_response(found: Found, encoder: str) -> pb.RetrieveResponse:
    """Return what a query answers."""
    return pb.RetrieveResponse(
        passages=[to_passage(candidate) for candidate in found.passages],
        encoder=encoder,
        index_versions=found.versions,
        latency_ms=found.latency_ms,
    )


def to_passage(candidate: Candidate) -> pb.RetrievedPassage:
    """Return one passage with everything that a citation needs."""
    chunk = candidate.chunk
    return pb.RetrievedPassage(
        chunk_id=chunk.chunk_id,
        document_id=chunk.document_id,
        collection=chunk.collection,
        kind=chunk.kind,
        title=chunk.title,
        text=chunk.text,
        version=chunk.version,
        date=chunk.effective_from.date().isoformat(),
        source=chunk.source,
        score=candidate.score,
        lexical_score=candidate.lexical,
        vector_score=candidate.vector,
        start=chunk.start,
        end=chunk.end,
        document_sha256=chunk.document_sha256,
    )
