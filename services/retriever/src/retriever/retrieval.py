"""Answers one query: both legs at once under one predicate, fused, reranked, and only what is relevant enough."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from prometheus_client import Counter

from encoders.encoder import Vectors
from knowledge.index import Hit, Index
from knowledge.preparation import Embeds, search_text
from knowledge.visibility import Visibility
from retriever.fusion import Candidate, aged, fuse
from retriever.relevance import coverage, stems
from retriever.reranking import Reranker, completed
from retriever.settings import RankingSettings, Weights
from retriever.windows import edges_first, narrow, within

T = TypeVar("T")
LEGS = ("lexical", "vector")
RERANKED = Counter("strata_retrieval_rerank_total", "Queries by what became of their reranking.", ["outcome"])


@dataclass(frozen=True)
class Window:
    """How long a passage may be in words, and what its sentences should match."""

    words: int
    focus: str = ""


@dataclass
class Found:
    """What a query brought, how long each part took in milliseconds, and whether it was reranked: done, off or skipped."""

    passages: list[Candidate]
    versions: dict[str, int]
    latency_ms: dict[str, float] = field(default_factory=dict)
    rerank: str = "off"


class Retrieval:
    """The search itself, the same in service and under evaluation."""

    def __init__(self, index: Index, encoder: Embeds, ranking: RankingSettings) -> None:
        """Search `index` with queries encoded by `encoder`."""
        self._index, self._encoder, self._ranking = index, encoder, ranking
        self._weights: Mapping[str, Weights] = {"fluid": ranking.fluid, "anchored": ranking.anchored}
        self._reranker = Reranker(ranking.rerank)

    async def search(self, query: str, visible: Visibility, top_k: int, window: Window | None = None) -> Found:
        """Return the passages that may ground an answer, best first unless the settings say otherwise; none when nothing is relevant."""
        found = await self.rank(query, visible)
        started = time.perf_counter()
        if window is None:
            passages = self._chosen(query, found.passages, top_k)
        else:
            # Documents repeat each other, so some windows will turn out to be the same.
            chosen = self._chosen(query, found.passages, 2 * top_k)
            passages = narrow(chosen, window.focus or query, window.words)[:top_k]
        if self._ranking.most_words is not None:
            passages = within(passages, self._ranking.most_words)
        found.passages = edges_first(passages) if self._ranking.best_at_edges else passages
        found.latency_ms["fuse"] += _since(started)
        return found

    async def rank(self, query: str, visible: Visibility, legs: Sequence[str] = LEGS, *, rerank: bool = True) -> Found:
        """Return every candidate of the legs, best first, however relevant; `rerank` off returns the fusion as it is."""
        versions = await asyncio.to_thread(self._index.versions)
        latency: dict[str, float] = {}
        limit = self._ranking.candidates
        encoded: list[Vectors] = []

        async def lexical() -> list[Hit]:
            return await _timed(latency, "lexical", lambda: asyncio.to_thread(self._index.lexical, query, visible, limit))

        async def nearest() -> list[Hit]:
            vector = await _timed(latency, "encode", lambda: asyncio.to_thread(self._encode, query))
            encoded.append(vector)
            return await _timed(latency, "vector", lambda: asyncio.to_thread(self._index.nearest, vector, visible, limit))

        words, vectors = await asyncio.gather(lexical() if "lexical" in legs else _nothing(), nearest() if "vector" in legs else _nothing())
        started = time.perf_counter()
        found = Found(fuse(words, vectors, self._weights), versions, latency)
        latency["fuse"] = _since(started)
        if rerank and encoded and "lexical" in legs:
            await self._rerank(query, encoded[0], visible, found)
        found.passages = aged(found.passages, visible.at, self._ranking.half_life_days, self._ranking.recency_weight)
        return found

    async def _rerank(self, query: str, vector: Vectors, visible: Visibility, found: Found) -> None:
        """Order the candidates again where that is on and in time; otherwise the fused order stands and `found.rerank` says why."""
        settings = self._ranking.rerank
        if not settings.enabled or not settings.except_collections.isdisjoint(visible.collections):
            return
        started = time.perf_counter()
        few, rest = found.passages[: settings.candidates], found.passages[settings.candidates :]
        try:
            async with asyncio.timeout(settings.budget_ms / 1000):
                # A slow engine costs the missing vectors, not the reranking.
                with contextlib.suppress(TimeoutError):
                    few = await asyncio.wait_for(asyncio.to_thread(completed, self._index, vector, few), 0.8 * settings.budget_ms / 1000)
                found.passages = await asyncio.to_thread(self._reranker.order, query, [*few, *rest])
            found.rerank = "done"
        except TimeoutError:
            found.rerank = "skipped"
        found.latency_ms["rerank"] = _since(started)
        RERANKED.labels(outcome=found.rerank).inc()

    def relevance(self, query_stems: set[str], candidate: Candidate) -> float:
        """Return the cosine plus the weighted share of the query's words that the chunk has; without a cosine, that share alone."""
        share = coverage(query_stems, search_text(candidate.chunk.title, candidate.chunk.text))
        if candidate.vector == 0:
            return self._ranking.coverage_alone_weight * share
        return candidate.vector + self._ranking.coverage_weight * share

    def _chosen(self, query: str, candidates: Sequence[Candidate], top_k: int) -> list[Candidate]:
        """Return the best `top_k` that are relevant, with at most a few of one document."""
        words, taken, chosen = stems(query), dict[str, int](), list[Candidate]()
        for candidate in candidates:
            if len(chosen) == top_k:
                break
            key = candidate.chunk.document_key
            if taken.get(key, 0) == self._ranking.chunks_per_document:
                continue
            if self.relevance(words, candidate) < self._ranking.relevance_threshold:
                continue
            taken[key] = taken.get(key, 0) + 1
            chosen.append(candidate)
        return chosen

    def _encode(self, query: str) -> Vectors:
        vector: Vectors = self._encoder.encode([query])[0]
        return vector


async def _timed(latency: dict[str, float], part: str, work: Callable[[], Awaitable[T]]) -> T:
    started = time.perf_counter()
    result = await work()
    latency[part] = _since(started)
    return result


async def _nothing() -> list[Hit]:
    return []


def _since(started: float) -> float:
    return (time.perf_counter() - started) * 1000
