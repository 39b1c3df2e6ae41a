"""Answers gRPC calls; only translates."""

import datetime as dt
import time
from typing import Any

from opentelemetry.trace import SpanKind
from prometheus_client import Histogram

from chassis import telemetry
from chassis.errors import FailedPreconditionError, InvalidArgumentError
from chassis.rpc import Context
from retriever import wire
from retriever.retrieval import Found, Retrieval
from retriever.settings import Settings
from retriever.shelf import Opened, Shelf
from retriever.staleness import Answered
from retriever.watermarks import Watermarks
from strata.retriever.v1 import retriever_service_pb2 as pb
from strata.retriever.v1.retriever_service_pb2_grpc import RetrieverServiceServicer

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
PARTS = Histogram("strata_retrieval_part_duration_seconds", "Time of each part of a query.", ["part"], buckets=_SECONDS)
PASSAGES = Histogram("strata_retrieval_passages", "Passages that a query brought.", buckets=(0, 1, 2, 4, 8, 16, 50))


class RetrieverServicer(RetrieverServiceServicer):
    """The contract over the index on a shelf."""

    def __init__(self, shelf: Shelf, settings: Settings, watermarks: Watermarks, answered: Answered) -> None:
        self._shelf, self._settings, self._watermarks, self._answered = shelf, settings, watermarks, answered
        self._current: tuple[Opened, Retrieval] | None = None

    async def Retrieve(self, request: pb.RetrieveRequest, context: Context) -> pb.RetrieveResponse:  # noqa: ARG002, N802 - the name in the contract
        """Return the best passages that the caller may see."""
        ranking = self._settings.ranking
        opened, retrieval = self._search()
        self._check(request, opened.key)
        options = wire.to_options(request)
        if not request.collections:
            return wire.to_response(Found([], {}), opened.key)
        seconds = min(request.wait_seconds, self._settings.longest_wait_seconds)
        stale = await self._watermarks.demand(dict(request.at_least), seconds, accept_stale=request.accept_stale)
        # Taken before the search: what is searched is at least this far.
        watermarks = self._watermarks.of(request.collections)
        visible = wire.to_visibility(request, dt.datetime.now(dt.UTC))
        searched_at, top_k = time.time(), request.top_k or ranking.default_top_k
        with telemetry.span(f"retrieval {','.join(request.collections)}", kind=SpanKind.CLIENT, **_attributes(request, top_k)) as span:
            found = await retrieval.search(request.query, visible, top_k, options)
            span.set_attribute("strata.knowledge.kind", sorted({candidate.chunk.kind for candidate in found.passages}))
        if not request.positions and not request.HasField("as_of"):
            self._answered.saw([candidate.chunk for candidate in found.passages], searched_at)
        for part, milliseconds in found.latency_ms.items():
            PARTS.labels(part=part).observe(milliseconds / 1000)
        PASSAGES.observe(len(found.passages))
        response = wire.to_response(found, opened.key)
        response.watermarks.update(watermarks)
        response.stale_seconds.update(stale)
        return response

    def _search(self) -> tuple[Opened, Retrieval]:
        """Return index and encoder as they are served now, and the search over them."""
        opened = self._shelf.opened()
        if self._current is None or self._current[0] is not opened:
            self._current = (opened, Retrieval(opened.index, opened.encoder, self._settings.ranking))
        return self._current

    def _check(self, request: pb.RetrieveRequest, key: str) -> None:
        if request.encoder and request.encoder != key:
            raise FailedPreconditionError(f"encoder {request.encoder!r} is not the index's own {key!r}", code="encoder_mismatch")
        if not request.query.strip():
            raise InvalidArgumentError("field 'query' is empty")
        if len(request.query) > self._settings.longest_query_characters:
            limit = self._settings.longest_query_characters
            raise InvalidArgumentError(f"field 'query' has {len(request.query)} characters; the limit is {limit}")
        if any(len(text) > self._settings.longest_query_characters for text in request.hypotheses):
            raise InvalidArgumentError(f"field 'hypotheses' has a text of more than {self._settings.longest_query_characters} characters")
        if request.top_k > self._settings.ranking.largest_top_k:
            raise InvalidArgumentError(f"field 'top_k' is {request.top_k}; the limit is {self._settings.ranking.largest_top_k}")
        if not request.caller.tenant:
            raise InvalidArgumentError("field 'caller.tenant' is empty")


def _attributes(request: pb.RetrieveRequest, top_k: int) -> dict[str, Any]:
    """Return what OpenTelemetry's conventions for retrieval name, and when the knowledge was looked at."""
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": "retrieval",
        "gen_ai.data_source.id": ",".join(request.collections),
        "gen_ai.request.top_k": top_k,
    }
    return attributes | ({"strata.knowledge.as_of": request.as_of.ToJsonString()} if request.HasField("as_of") else {})
