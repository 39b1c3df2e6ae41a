"""Searches for every judged query of an evaluation set, and what that brought and took."""

import asyncio
import datetime as dt
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from retriever import metrics
from retriever.retrieval import Found

Search = Callable[[str, dt.datetime], Awaitable[Found]]


@dataclass
class Run:
    """What queries brought and how long they took."""

    rows: list[dict[str, float]] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)
    seconds: float = 0.0
    parts: dict[str, list[float]] = field(default_factory=dict)
    rerank: Counter[str] = field(default_factory=Counter)

    def took(self, found: Found, started: float) -> None:
        """Note how long a query took, its parts, and whether it was reranked."""
        self.milliseconds.append((time.perf_counter() - started) * 1000)
        self.rerank[found.rerank] += 1
        for part, milliseconds in found.latency_ms.items():
            self.parts.setdefault(part, []).append(milliseconds)

    def summary(self) -> dict[str, object]:
        """Return the metrics with their intervals, latency and throughput."""
        rate = round(len(self.rows) / self.seconds, 1) if self.seconds else 0.0
        return {
            **metrics.summary(self.rows),
            "latency_ms": metrics.latency(self.milliseconds),
            "latency_parts_ms": {part: metrics.latency(values) for part, values in self.parts.items()},
            "throughput_per_s": rate,
            "rerank": dict(self.rerank),
        }


def judge(queries: Mapping[str, str], judged: Mapping[str, Mapping[str, int]], search: Search) -> Run:
    """Return the run of all judged queries, one after the other."""
    return asyncio.run(_judge(queries, judged, search))


async def _judge(queries: Mapping[str, str], judged: Mapping[str, Mapping[str, int]], search: Search) -> Run:
    run, began, now = Run(), time.perf_counter(), dt.datetime.now(dt.UTC)
    for name, relevant in judged.items():
        started = time.perf_counter()
        found = await search(queries[name], now)
        run.took(found, started)
        # The first, and so the best, chunk of a document gives its place.
        ranked = list(dict.fromkeys(candidate.chunk.document_id for candidate in found.passages))
        run.rows.append(metrics.scores(ranked, relevant))
    run.seconds = time.perf_counter() - began
    return run
