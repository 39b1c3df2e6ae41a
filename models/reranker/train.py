"""Fits weights of the reranker's signals, each collection left out in turn, and compares them with the weights that are shipped.

Usage: python models/reranker/train.py --data FOLDER_OF_PUBLIC_SETS [--cache VECTORS.db] [--out models/reranker/metrics.json]
"""

import argparse
import asyncio
import hashlib
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from knowledge.lance import LanceIndex
from retriever import beir, metrics
from retriever.bench import Bench, Version, document
from retriever.reranking import Reranker
from retriever.settings import RankingSettings
from retriever.weighting import RerankSettings, SignalWeights

NAMES = list(SignalWeights.model_fields)
SHARPNESS, STEPS, RATE = 12.0, 300, 0.02
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Query:
    """The candidates of one judged query: signals (candidates, signals), fused and served scores, and documents."""

    name: str
    signals: Array
    fused: Array
    served: Array
    documents: list[str]
    judged: Mapping[str, int]

    def ndcg(self, scores: Array) -> float:
        """Return nDCG at ten of the documents in the order of these scores."""
        ranked = dict.fromkeys(self.documents[place] for place in np.argsort(-scores, kind="stable"))
        return metrics.ndcg(list(ranked), self.judged, 10)


def part(name: str) -> int:
    """Return 0 or 1: the half of a collection that a query is in; weights were chosen on 1."""
    return int(hashlib.md5(name.encode(), usedforsecurity=False).hexdigest(), 16) % 2


async def collect(folder: Path, split: str, cache: Path | None, most: int) -> list[Query]:
    """Index a collection, search it with the product's own code and read the signals of every candidate."""
    collection = beir.load(folder, split)
    versions = [Version(document(name, *parts)) for name, parts in collection.documents.items()]
    # No budget: what is compared here is the order, not the time.
    settings, now = RankingSettings(rerank=RerankSettings(budget_ms=60_000)), datetime.now(UTC)
    reranker, queries = Reranker(settings.rerank), list[Query]()
    with tempfile.TemporaryDirectory() as place:
        bench = Bench(partial(LanceIndex.create, Path(place)), versions, threads=1, cache=cache, ranking=settings)
        for name, judged in sorted(collection.judgements.items(), key=lambda item: hashlib.sha256(item[0].encode()).digest())[:most]:
            found = (await bench.rank(collection.queries[name], now)).passages
            columns, _ = reranker.columns(collection.queries[name], found)
            queries.append(
                Query(
                    name,
                    np.stack([columns[signal] for signal in NAMES], axis=1),
                    np.array([candidate.fused for candidate in found]),
                    np.array([candidate.score for candidate in found]),
                    [candidate.chunk.document_id for candidate in found],
                    judged,
                )
            )
    return queries


def fit(collections: Sequence[Sequence[Query]], damping: float) -> Array:
    """Return weights by gradient descent on the listwise softmax loss, pulled towards one half for each leg."""
    start = np.array([0.5 if name in {"lexical", "vector"} else 0.0 for name in NAMES])
    weights, first, second = start.copy(), np.zeros(len(NAMES)), np.zeros(len(NAMES))
    packed = [_packed(queries) for queries in collections]
    for step in range(1, STEPS + 1):
        gradient = 2 * damping * SHARPNESS * (weights - start)
        for signals, gains, there in packed:
            likely = np.exp(SHARPNESS * (signals @ weights - 2)) * there
            off = likely / likely.sum(axis=1, keepdims=True) - gains
            gradient += SHARPNESS * np.einsum("qc,qcs->s", off, signals) / len(gains) / len(packed)
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        weights -= RATE * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    return weights


def _packed(queries: Sequence[Query]) -> tuple[Array, Array, Array]:
    """Return signals (queries, candidates, signals), shares of the gain and which candidates there are (queries, candidates)."""
    useful = [query for query in queries if any(name in query.judged for name in query.documents)]
    longest = max(len(query.documents) for query in useful)
    signals, gains, there = np.zeros((len(useful), longest, len(NAMES))), np.zeros((len(useful), longest)), np.zeros((len(useful), longest))
    for row, query in enumerate(useful):
        size = len(query.documents)
        signals[row, :size], there[row, :size] = query.signals, 1
        gains[row, :size] = [query.judged.get(name, 0) for name in query.documents]
    return signals, gains / gains.sum(axis=1, keepdims=True), there


def report(collections: Mapping[str, Sequence[Query]]) -> dict[str, object]:
    """Return nDCG at ten of every collection: fused, as shipped, and with weights fitted on the others."""
    result: dict[str, object] = {}
    for left_out, queries in collections.items():
        others = [rows for name, rows in collections.items() if name.partition("/")[0] != left_out.partition("/")[0]]
        row: dict[str, object] = {"n": len(queries)}
        fused = [{"ndcg@10": query.ndcg(query.fused)} for query in queries]
        for name, scores in {
            "shipped": [query.served for query in queries],
            **{
                f"fitted on the others, damping {d}": [query.signals @ w for query in queries]
                for d in (0.03, 0.3)
                for w in [fit(others, d)]
            },
        }.items():
            rows = [{"ndcg@10": query.ndcg(values)} for query, values in zip(queries, scores, strict=True)]
            row[name] = round(float(np.mean([entry["ndcg@10"] for entry in rows])), 4)
            row[f"{name}, minus fusion"] = metrics.difference(rows, fused, "ndcg@10")
        row["fusion"] = round(float(np.mean([entry["ndcg@10"] for entry in fused])), 4)
        result[left_out] = row
    return result


def main() -> None:
    """Measure, and write `metrics.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--queries", type=int, default=200, help="most queries of a split")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("metrics.json"))
    options = parser.parse_args()
    collections: dict[str, list[Query]] = {}
    for folder, split, halved in (
        ("tau2_banking_knowledge", "test", True),
        ("pubmedqa_l", "test", False),
        ("scifact", "train", False),
        ("scifact", "dev", False),
    ):
        queries = asyncio.run(collect(options.data / "retrieval" / folder, split, options.cache, options.queries))
        for half in (0, 1) if halved else (None,):
            name = f"{folder}/{split}" + (f", half {half}" if half is not None else "")
            collections[name] = [query for query in queries if half is None or part(query.name) == half]
        print(folder, split, len(queries), file=sys.stderr)
    options.out.write_text(json.dumps(report(collections), indent=1) + "\n")


if __name__ == "__main__":
    main()
