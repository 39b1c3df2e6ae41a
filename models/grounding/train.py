"""Fits the support score on public claims and near-copies, and reports every set against lexical overlap.

Usage: python models/grounding/train.py --data FOLDER_OF_PUBLIC_SETS [--cache FILE]
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pairs import Pair, cg2c, near_copies, public
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from encoders import Encoder
from encoders.grounding import FEATURES, WEIGHTS_FILE, SupportScorer, features, gather
from encoders.metrics import auroc, balanced_accuracy, bootstrap_interval, calibration_error
from encoders.vector_cache import VectorCache

HERE = Path(__file__).parent
VERSION = "support@v1"
_OVERLAP = FEATURES.index("all_coverage")
Numbers = NDArray[np.float64]


class Table:
    """Features, answers and sources of pairs."""

    def __init__(self, pairs: list[Pair], cache: VectorCache) -> None:
        """Compute the features as the scorer does."""
        evidence = [gather(pair.claim, pair.passages) for pair in pairs]
        cache.encode([text for item in evidence for text in (item.claim.text, *(s.text for s in item.sentences))])
        values = []
        for item in evidence:
            vectors = cache.encode([item.claim.text, *(sentence.text for sentence in item.sentences)])
            values.append(features(item, vectors[1:] @ vectors[0]))
        self.pairs = pairs
        self.values = np.array(values, dtype=np.float64)
        self.supported = np.array([pair.supported for pair in pairs])
        self.sources = np.array([pair.source.split(":")[0] for pair in pairs])


def fit(values: Numbers, supported: NDArray[np.bool_], sources: NDArray[Any]) -> tuple[Numbers, float]:
    """Return weights on raw features and bias; every source and answer weighs the same."""
    scaler = StandardScaler().fit(values)
    weights = np.zeros(len(values))
    for source in set(sources):
        for answer in (True, False):
            chosen = (sources == source) & (supported == answer)
            weights[chosen] = np.sqrt(chosen.sum()) / max(1, chosen.sum())
    weights *= len(values) / weights.sum()
    model = LogisticRegression(C=0.3, max_iter=2000).fit(scaler.transform(values), supported, sample_weight=weights)
    raw = model.coef_[0] / scaler.scale_
    return raw, float(model.intercept_[0] - raw @ scaler.mean_)


def probabilities(values: Numbers, weights: Numbers, bias: float) -> Numbers:
    """Return the chance of support for every row."""
    result: Numbers = 1.0 / (1.0 + np.exp(-(values @ weights + bias)))
    return result


def best_threshold(scores: Numbers, supported: NDArray[np.bool_]) -> float:
    """Return the threshold with the best balanced accuracy."""
    candidates = np.quantile(scores, np.linspace(0.02, 0.98, 97))
    return float(max(candidates, key=lambda threshold: balanced_accuracy(scores >= threshold, supported) or 0.0))


def measure(scores: Numbers, supported: NDArray[np.bool_], threshold: float) -> dict[str, Any]:
    """Return balanced accuracy with its interval, AUROC and calibration error."""
    interval = bootstrap_interval(lambda index: balanced_accuracy(scores[index] >= threshold, supported[index]), len(scores))
    found = {
        "balanced_accuracy": balanced_accuracy(scores >= threshold, supported),
        "auroc": auroc(scores, supported),
        "ece": calibration_error(scores, supported, 10),
    }
    report: dict[str, Any] = {"n": len(scores)} | {name: round(value, 4) for name, value in found.items() if value is not None}
    return report | {"interval": [round(bound, 4) for bound in interval] if interval else None}


def leave_one_out(train: Table, names: Iterable[str]) -> dict[str, Any]:
    """Return, per source, the measures of a fit that never saw it, beside lexical overlap."""
    report = {}
    for name in names:
        out = train.sources == name
        weights, bias = fit(train.values[~out], train.supported[~out], train.sources[~out])
        rest = probabilities(train.values[~out], weights, bias)
        scores, gold = probabilities(train.values[out], weights, bias), train.supported[out]
        overlap = train.values[:, _OVERLAP]
        floor = best_threshold(overlap[~out], train.supported[~out])
        report[name] = {
            "score": measure(scores, gold, best_threshold(rest, train.supported[~out])),
            "overlap_floor": measure(overlap[out], gold, floor),
        }
    return report


def main() -> None:
    """Fit, measure and write `support.json` and `metrics.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path(".cache/vectors.sqlite"))
    options = parser.parse_args()
    encoder = Encoder.load()
    cache = VectorCache(encoder, options.cache)
    train = Table([*cg2c(options.data), *public(options.data), *near_copies(options.data, test=False)], cache)
    judged = ("cg2c", "wice", "scifact", "fever_symmetric", "begin_wow", "factcheck_gpt")
    report: dict[str, Any] = {"pairs": len(train.pairs), "unseen_set": leave_one_out(train, judged)}
    weights, bias = fit(train.values, train.supported, train.sources)
    threshold = best_threshold(probabilities(train.values, weights, bias), train.supported)
    content = {
        "version": VERSION,
        "encoder": encoder.identity.key(),
        "weights": {name: round(float(value), 5) for name, value in zip(FEATURES, weights, strict=True)},
        "bias": round(bias, 5),
        "threshold": round(threshold, 4),
    }
    (HERE / WEIGHTS_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    scorer = SupportScorer.load(HERE, encoder)
    right: dict[str, list[bool]] = {}
    for pair in near_copies(options.data, test=True):
        right.setdefault(pair.source, []).append(scorer.score(pair.claim, pair.passages).supported == pair.supported)
    report["near_copies_unseen_documents"] = {
        name: {"n": len(hits), "accuracy": round(float(np.mean(hits)), 4)} for name, hits in right.items()
    }
    report["threshold"] = content["threshold"]
    (HERE / "metrics.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
