"""Ranking metrics and their bootstrap intervals."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

_RESAMPLES = 1000


def ndcg(ranked: Sequence[str], judged: Mapping[str, int], k: int) -> float:
    """Return the normalised discounted cumulative gain of the first `k`."""
    gain = sum(judged.get(name, 0) / math.log2(place + 2) for place, name in enumerate(ranked[:k]))
    best = sum(score / math.log2(place + 2) for place, score in enumerate(sorted(judged.values(), reverse=True)[:k]))
    return gain / best if best else 0.0


def reciprocal_rank(ranked: Sequence[str], judged: Mapping[str, int], k: int) -> float:
    """Return 1 over the place of the first relevant one among the first `k`; 0 when there is none."""
    return next((1 / (place + 1) for place, name in enumerate(ranked[:k]) if name in judged), 0.0)


def recall(ranked: Sequence[str], judged: Mapping[str, int], k: int) -> float:
    """Return the share of the relevant ones that are among the first `k`."""
    return len(set(ranked[:k]) & judged.keys()) / len(judged)


def precision(ranked: Sequence[str], judged: Mapping[str, int], k: int) -> float:
    """Return the share of the first `k` that are relevant; of those there are, when there are fewer."""
    first = ranked[:k]
    return sum(name in judged for name in first) / len(first) if first else 0.0


def scores(ranked: Sequence[str], judged: Mapping[str, int]) -> dict[str, float]:
    """Return every metric of one query."""
    return {
        "ndcg@10": ndcg(ranked, judged, 10),
        "mrr@10": reciprocal_rank(ranked, judged, 10),
        "recall@100": recall(ranked, judged, 100),
        "hit@5": float(any(name in judged for name in ranked[:5])),
        "context_precision@5": precision(ranked, judged, 5),
        "context_recall@5": recall(ranked, judged, 5),
    }


def summary(per_query: Sequence[Mapping[str, float]]) -> dict[str, object]:
    """Return the mean of each metric, and under `intervals` its 95 % bootstrap interval."""
    if not per_query:
        return {"intervals": {}}
    names = list(per_query[0])
    values = np.array([[row[name] for name in names] for row in per_query])
    picks = np.random.default_rng(0).integers(0, len(values), (_RESAMPLES, len(values)))
    low, high = np.percentile(values[picks].mean(axis=1), [2.5, 97.5], axis=0)
    means: dict[str, object] = {name: round(float(mean), 4) for name, mean in zip(names, values.mean(axis=0), strict=True)}
    means["intervals"] = {name: [round(float(low[i]), 4), round(float(high[i]), 4)] for i, name in enumerate(names)}
    return means


def difference(first: Sequence[Mapping[str, float]], second: Sequence[Mapping[str, float]], name: str) -> dict[str, object]:
    """Return how much better the first run's metric is, query by query, with its paired 95 % bootstrap interval."""
    gains = np.array([one[name] - other[name] for one, other in zip(first, second, strict=True)])
    if not len(gains):
        return {}
    picks = np.random.default_rng(0).integers(0, len(gains), (_RESAMPLES, len(gains)))
    low, high = np.percentile(gains[picks].mean(axis=1), [2.5, 97.5])
    return {"metric": name, "mean": round(float(gains.mean()), 4), "interval": [round(float(low), 4), round(float(high), 4)]}


def latency(milliseconds: Sequence[float]) -> dict[str, float]:
    """Return p50, p95 and p99."""
    if not milliseconds:
        return {}
    return {f"p{share}": round(float(np.percentile(milliseconds, share)), 2) for share in (50, 95, 99)}
