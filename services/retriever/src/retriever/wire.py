"""Between protobuf and the domain."""

import datetime as dt
import math

from chassis.errors import InvalidArgumentError
from chassis.rpc import to_time
from knowledge.visibility import NEVER_OVER, Visibility
from retriever.compression import Compress
from retriever.fusion import Candidate
from retriever.options import Options, Window
from retriever.queries import REWRITES
from retriever.retrieval import Found
from strata.retriever.v1 import retriever_service_pb2 as pb


def to_visibility(request: pb.RetrieveRequest, now: dt.datetime) -> Visibility:
    """Return what the caller of a request may see."""
    return Visibility(
        tenant=request.caller.tenant,
        labels=frozenset(request.caller.labels),
        collections=tuple(request.collections),
        at=to_time(request.as_of, "as_of") if request.HasField("as_of") else now,
        filters=dict(request.filters),
        version=request.version,
        # Indexes keep a place in 63 bits, the largest of which says that a state has not ended.
        positions={name: min(place, NEVER_OVER - 1) for name, place in request.positions.items()},
    )


def to_options(request: pb.RetrieveRequest) -> Options:
    """Return how the query is searched and what becomes of its passages; raise InvalidArgumentError for what cannot be."""
    if request.rewrite and request.rewrite not in REWRITES:
        raise InvalidArgumentError(f"field 'rewrite' is {request.rewrite!r}; known: {sorted(REWRITES)}")
    compress = None
    if request.HasField("compress"):
        ratio = request.compress.keep_ratio
        if not 0 <= ratio <= 1 or not (ratio or request.compress.max_tokens):
            raise InvalidArgumentError(f"field 'compress' needs 'max_tokens' or a 'keep_ratio' above 0 and at most 1, got {ratio}")
        compress = Compress(request.compress.max_tokens, ratio)
    if not 0 <= request.multi_query.budget_ms < math.inf:
        raise InvalidArgumentError(f"field 'multi_query.budget_ms' is {request.multi_query.budget_ms}; it must not be negative")
    return Options(
        window=Window(request.window_words, request.focus) if request.window_words else None,
        focus=request.focus,
        compress=compress,
        rewrite=request.rewrite,
        parts=request.multi_query.queries,
        variants_ms=request.multi_query.budget_ms,
        hypotheses=tuple(request.hypotheses),
        expand_tokens=request.expand.max_tokens,
    )


def to_response(found: Found, encoder: str) -> pb.RetrieveResponse:
    """Return what a query answers."""
    return pb.RetrieveResponse(
        passages=[to_passage(candidate) for candidate in found.passages],
        encoder=encoder,
        index_versions=found.versions,
        latency_ms=found.latency_ms,
        outcomes=found.report.outcomes,
        tokens_before=found.report.tokens_before,
        tokens_after=found.report.tokens_after,
        queries=found.report.queries,
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
        spans=[pb.Span(start=piece.start, end=piece.end) for piece in candidate.pieces],
    )
