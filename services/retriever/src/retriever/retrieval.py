"""Answers one query: both legs at once under one predicate, fused, reranked, and only what is relevant enough."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, cast

from prometheus_client import Counter

from chassis.tasks import in_time
from encoders.encoder import Vectors
from knowledge.index import Hit, Index, Paired
from knowledge.preparation import Embeds, search_text
from knowledge.schema import Chunk
from knowledge.visibility import Visibility
from retriever.compression import compress
from retriever.expansion import expanded
from retriever.fusion import Candidate, aged, fuse
from retriever.options import DONE, OFF, SKIPPED, Options, Report
from retriever.queries import parts, rewritten
from retriever.relevance import coverage, stems
from retriever.reranking import Reranker, completed
from retriever.settings import Fusion, RankingSettings, Weights
from retriever.variants import back_in_time, combined
from retriever.windows import edges_first, narrow, within

T = TypeVar("T")
LEGS = ("lexical", "vector")
# Versions of the index from before the search, the query's vector, and the hits of both legs.
Legs = tuple[dict[str, int], Vectors | None, list[Hit], list[Hit]]
_PLAIN = Options()
_RECENT_SECONDS = 1.0
RERANKED = Counter("strata_retrieval_rerank_total", "Queries by what became of their reranking.", ["outcome"])


class Reads(Embeds, Protocol):
    """An encoder that also says how long a text is."""

    def count_tokens(self, text: str) -> int:
        """Return how many tokens it would read of `text`, its own marks included."""
        ...


@dataclass
class Found:
    """What a query brought, how long each part took in milliseconds, and whether it was reranked: done, off or skipped."""

    passages: list[Candidate]
    versions: dict[str, int]
    latency_ms: dict[str, float] = field(default_factory=dict)
    rerank: str = OFF
    # The query's own vector; None before it is encoded, and where no leg needs it.
    vector: Vectors | None = None
    report: Report = field(default_factory=Report)


class Retrieval:
    """The search itself, the same in service and under evaluation."""

    def __init__(self, index: Index, encoder: Reads, ranking: RankingSettings) -> None:
        """Search `index` with queries encoded by `encoder`."""
        self._index, self._encoder, self._ranking = index, encoder, ranking
        self._weights: Mapping[str, Weights] = {"fluid": ranking.fluid, "anchored": ranking.anchored}
        own = ranking.collections
        self._own_weights = {name: one.weights for name, one in own.items() if one.weights is not None}
        self._own_thresholds = {name: one.relevance_threshold for name, one in own.items() if one.relevance_threshold is not None}
        self._reranker = Reranker(ranking.rerank)

    async def search(self, query: str, visible: Visibility, top_k: int, options: Options = _PLAIN) -> Found:
        """Return the passages that may ground an answer, best first unless the settings say otherwise; none when nothing is relevant."""
        query = rewritten(query, options.rewrite)
        found = await self.find(query, visible, options)
        started = time.perf_counter()
        if options.window is None:
            found.passages = self._chosen(query, found.passages, top_k)
            await self._expand(options, found)
        else:
            # Documents repeat each other, so some windows will turn out to be the same.
            chosen = self._chosen(query, found.passages, 2 * top_k)
            found.passages = narrow(chosen, options.window.focus or query, options.window.words)[:top_k]
        await self._compress(options.focus or query, options, found)
        if self._ranking.most_words is not None:
            found.passages = within(found.passages, self._ranking.most_words)
        if self._ranking.best_at_edges:
            found.passages = edges_first(found.passages)
        found.latency_ms["fuse"] += _since(started) - found.latency_ms.get("expand", 0.0) - found.latency_ms.get("compress", 0.0)
        found.report.outcomes["rerank"] = found.rerank
        return found

    async def find(self, query: str, visible: Visibility, options: Options = _PLAIN) -> Found:
        """Return every candidate of the query, and of the variants that the options name as far as they are back in time."""
        asked, guessed = parts(query, options.parts), [text for text in options.hypotheses if text.strip()]
        variants = [*guessed, *asked][: self._ranking.variants.most]
        started = time.perf_counter()
        if not variants:
            found = await self.rank(query, visible)
            found.report.outcomes |= {"multi_query": OFF, "hypotheses": OFF}
            return found

        async def ranked(text: str) -> Sequence[Candidate]:
            return (await self.rank(text, visible)).passages

        budget = options.variants_ms or self._ranking.variants.budget_ms
        found, others = await asyncio.gather(self.rank(query, visible), back_in_time(ranked, variants, budget))
        if others:
            found.passages = combined(found.passages, others, self._ranking.variants.weight)
            if found.vector is not None:
                # What only a variant found is held against the query before it may ground an answer; without, by its words alone.
                holding = asyncio.to_thread(completed, self._index, found.vector, found.passages)
                with contextlib.suppress(TimeoutError):
                    found.passages = await in_time(budget / 1000, holding)
        found.latency_ms["variants"] = _since(started)
        outcome = DONE if len(others) == len(variants) else SKIPPED
        found.report.queries = 1 + len(others)
        found.report.outcomes |= {"multi_query": outcome if asked else OFF, "hypotheses": outcome if guessed else OFF}
        return found

    async def _expand(self, options: Options, found: Found) -> None:
        """Grow the passages by their neighbours where that is asked for or set, within its budget."""
        by_collection = self._ranking.expand_tokens
        found.report.outcomes["expand"] = OFF
        if not found.passages or not (options.expand_tokens or by_collection):
            return
        started = time.perf_counter()

        def limit(candidate: Candidate) -> int:
            return options.expand_tokens or by_collection.get(candidate.chunk.collection, 0)

        growing = asyncio.to_thread(expanded, self._index, found.passages, limit, self._encoder.count_tokens)
        try:
            found.passages = await in_time(self._ranking.expand_budget_ms / 1000, growing)
            found.report.outcomes["expand"] = DONE
        except TimeoutError:
            found.report.outcomes["expand"] = SKIPPED
        found.latency_ms["expand"] = _since(started)

    async def _compress(self, question: str, options: Options, found: Found) -> None:
        """Shorten the passages where that is asked for."""
        found.report.outcomes["compress"] = OFF
        if options.compress is None or not found.passages:
            return
        started = time.perf_counter()
        count, weights = self._encoder.count_tokens, self._ranking.sentences
        result = await asyncio.to_thread(compress, question, found.passages, options.compress, self._encoder, count, weights)
        found.passages, found.report.tokens_before, found.report.tokens_after = result.passages, result.before, result.after
        found.report.outcomes["compress"] = DONE
        found.latency_ms["compress"] = _since(started)

    async def rank(
        self, query: str, visible: Visibility, legs: Sequence[str] = LEGS, *, rerank: bool = True, fusion: Fusion | None = None
    ) -> Found:
        """Return every candidate of the legs, best first, however relevant; `rerank` off returns the fusion as it is."""
        latency: dict[str, float] = {}
        together = isinstance(self._index, Paired) and set(legs) == set(LEGS)
        if together:
            found_by_legs = await asyncio.to_thread(self._together, query, visible, latency)
        else:
            found_by_legs = await self._apart(query, visible, legs, latency)
        versions, vector, words, vectors = found_by_legs
        started = time.perf_counter()
        found = Found(fuse(words, vectors, self._weigh, fusion or self._fusion(visible.collections)), versions, latency)
        latency["fuse"] = _since(started)
        found.vector = vector
        if rerank and vector is not None and "lexical" in legs:
            await self._rerank(query, vector, visible, found)
        found.passages = aged(found.passages, visible.at, self._ranking.half_life_days, self._ranking.recency_weight)
        return found

    def _together(self, query: str, visible: Visibility, latency: dict[str, float]) -> Legs:
        """Return what both legs found by one request.

        That the index said a moment ago how far it is is enough: whoever watches it asks after every change.
        """
        index, started = cast("Paired", self._index), time.perf_counter()
        vector = self._encode(query)
        latency["encode"], started = _since(started), time.perf_counter()
        versions = index.versions_before(_RECENT_SECONDS)
        words, vectors = index.both(query, vector, visible, self._ranking.candidates)
        latency["search"] = _since(started)
        return versions, vector, words, vectors

    async def _apart(self, query: str, visible: Visibility, legs: Sequence[str], latency: dict[str, float]) -> Legs:
        """Return what each leg found; the words are searched while the query is encoded."""
        versions, limit = await asyncio.to_thread(self._index.versions), self._ranking.candidates
        encoded: list[Vectors] = []

        async def lexical() -> list[Hit]:
            return await _timed(latency, "lexical", lambda: asyncio.to_thread(self._index.lexical, query, visible, limit))

        async def nearest() -> list[Hit]:
            encoded.append(await _timed(latency, "encode", lambda: asyncio.to_thread(self._encode, query)))
            return await _timed(latency, "vector", lambda: asyncio.to_thread(self._index.nearest, encoded[0], visible, limit))

        words, vectors = await asyncio.gather(lexical() if "lexical" in legs else _nothing(), nearest() if "vector" in legs else _nothing())
        return versions, encoded[0] if encoded else None, words, vectors

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
                    few = await in_time(0.8 * settings.budget_ms / 1000, asyncio.to_thread(completed, self._index, vector, few))
                found.passages = await asyncio.to_thread(self._reranker.order, query, [*few, *rest])
            found.rerank = DONE
        except TimeoutError:
            found.rerank = SKIPPED
        found.latency_ms["rerank"] = _since(started)
        RERANKED.labels(outcome=found.rerank).inc()

    def relevance(self, query_stems: set[str], candidate: Candidate) -> float:
        """Return the cosine plus the weighted share of the query's words that the chunk has; without a cosine, that share alone."""
        share = coverage(query_stems, search_text(candidate.chunk.title, candidate.chunk.text))
        if candidate.vector == 0:
            return self._ranking.coverage_alone_weight * share
        return candidate.vector + self._ranking.coverage_weight * share

    def _is_relevant(self, query_stems: set[str], candidate: Candidate) -> bool:
        """Say whether the relevance reaches the threshold; words are counted only where they decide it."""
        threshold = self._own_thresholds.get(candidate.chunk.collection, self._ranking.relevance_threshold)
        if candidate.vector != 0 and not threshold - self._ranking.coverage_weight <= candidate.vector < threshold:
            return candidate.vector >= threshold
        return self.relevance(query_stems, candidate) >= threshold

    def _chosen(self, query: str, candidates: Sequence[Candidate], top_k: int) -> list[Candidate]:
        """Return the best `top_k` that are relevant, with at most a few of one document."""
        words, taken, chosen = stems(query), dict[str, int](), list[Candidate]()
        for candidate in candidates:
            if len(chosen) == top_k:
                break
            key = candidate.chunk.document_key
            if taken.get(key, 0) == self._ranking.chunks_per_document:
                continue
            if not self._is_relevant(words, candidate):
                continue
            taken[key] = taken.get(key, 0) + 1
            chosen.append(candidate)
        return chosen

    def _weigh(self, chunk: Chunk) -> Weights:
        return self._own_weights.get(chunk.collection) or self._weights[chunk.kind]

    def _fusion(self, collections: Sequence[str]) -> Fusion:
        """Return the one method of all collections of a query; legs are fused once, so that where they differ the service's counts."""
        own, usual = self._ranking.collections, self._ranking.fusion
        methods = {(own[name].fusion if name in own else None) or usual for name in collections}
        return methods.pop() if len(methods) == 1 else usual

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
