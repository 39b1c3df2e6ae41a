"""Fits the support score on public claims and near-copies, and reports every set against lexical overlap.

Usage: python models/grounding/train.py --data FOLDER_OF_PUBLIC_SETS
"""

# ruff: noqa: SIM905 - a list of words reads best as a sentence

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pairs import PUBLIC, Pair, cg2c, near_copies, public
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import GroupKFold

from encoders import Encoder
from encoders.alignment import Aligner
from encoders.grounding import FEATURES, WEIGHTS_FILE, SupportScorer, features, gather
from encoders.metrics import auroc, balanced_accuracy, bootstrap_interval, calibration_error
from encoders.quantities import Figures, missing

HERE = Path(__file__).parent
VERSION = "support@v2"
_OVERLAP = FEATURES.index("all_coverage")
_FABRICATED = 0.05
_CG2C_EVERY = 3
# More agreement may never count against a claim, and a fault may never count for it.
_RISING = (
    "best_coverage pair_coverage all_coverage window_coverage bigram_coverage longest_copy coverage_squared "
    "soft_coverage exact_coverage phrase_coverage worst_phrases"
).split()
_FALLING = (
    "numbers_missing measures_missing names_missing negated_copy opposite_copy number_copy new_words "
    "worst_piece second_worst third_worst worst_three lost_weight lost_pieces"
).split()
Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]


class Table:
    """Features, answers, sources and groups of pairs; `invented` marks claims with a figure that no passage holds."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        """Compute the features as the scorer does."""
        aligner, values, invented = Aligner.load(), [], []
        for pair in pairs:
            figures = Figures(pair.passages)
            evidence = gather(figures.respelled(pair.claim), pair.passages)
            values.append(features(evidence, aligner))
            invented.append(bool(missing(evidence.claim.text, figures)))
        self.values = np.nan_to_num(np.array(values, dtype=np.float64))
        self.invented = np.array(invented)
        self.supported = np.array([pair.supported for pair in pairs])
        self.sources = np.array([pair.source.split(":")[0] for pair in pairs])
        self.groups = np.array([f"{pair.source}|{pair.group or number}" for number, pair in enumerate(pairs)])


class Fit:
    """Boosted trees that rise with agreement and fall with faults; every source counts, its answers as they fall."""

    def __init__(self, table: Table, index: NDArray[np.int64]) -> None:
        """Fit on the rows of `index`, and choose the threshold with the best mean balanced accuracy of their sources."""
        values, supported, sources = table.values[index], table.supported[index], table.sources[index]
        weights = np.zeros(len(index))
        for source in set(sources):
            weights[sources == source] = 1 / np.sqrt((sources == source).sum())
        weights *= len(index) / weights.sum()
        direction = [(name in _RISING) - (name in _FALLING) for name in FEATURES]
        self.model = HistGradientBoostingClassifier(
            max_iter=90, learning_rate=0.07, max_leaf_nodes=8, min_samples_leaf=30, l2_regularization=5, monotonic_cst=direction,
            early_stopping=False, random_state=0,
        ).fit(values, supported, sample_weight=weights)  # fmt: skip
        self.threshold = best_threshold(self.chances(table, index), supported, sources)

    def chances(self, table: Table, index: NDArray[np.int64]) -> Numbers:
        """Return the chance of support of the rows, made-up figures included."""
        found = self.model.predict_proba(table.values[index])[:, 1]
        return np.asarray(np.where(table.invented[index], np.minimum(found, _FABRICATED), found), dtype=np.float64)

    def content(self) -> dict[str, Any]:
        """Return the trees as the scorer reads them; a leaf is its own left child."""
        trees = []
        for (predictor,) in self.model._predictors:  # noqa: SLF001 - scikit-learn has no other way out
            nodes, count = predictor.nodes, np.arange(len(predictor.nodes))
            leaf = nodes["is_leaf"].astype(bool)
            left, right = (np.where(leaf, count, nodes[side]) for side in ("left", "right"))
            tree = {"feature": nodes["feature_idx"], "left": left, "right": right}
            # A threshold may be the very value of a row, so it keeps all of its digits.
            numbers = {"threshold": np.where(leaf, 0.0, nodes["num_threshold"]), "value": np.round(nodes["value"], 6)}
            trees.append({name: [int(item) for item in part] for name, part in tree.items()}
                         | {name: [float(item) for item in part] for name, part in numbers.items()})  # fmt: skip
        return {"features": list(FEATURES), "bias": round(float(np.ravel(self.model._baseline_prediction)[0]), 6), "trees": trees}  # noqa: SLF001


def best_threshold(scores: Numbers, supported: Flags, sources: NDArray[Any]) -> float:
    """Return the threshold with the best balanced accuracy, averaged over the public sources that are there."""
    names = [name for name in PUBLIC if (sources == name).any()] or sorted(set(sources))

    def mean(threshold: float) -> float:
        found = [balanced_accuracy(scores[sources == name] >= threshold, supported[sources == name]) for name in names]
        return float(np.mean([value for value in found if value is not None]))

    return float(max(np.quantile(scores, np.linspace(0.02, 0.98, 97)), key=mean))


def measure(scores: Numbers, supported: Flags, flagged: Flags) -> dict[str, Any]:
    """Return balanced accuracy with its interval, AUROC and calibration error."""
    interval = bootstrap_interval(lambda index: balanced_accuracy(flagged[index], supported[index]), len(scores))
    found = {
        "balanced_accuracy": balanced_accuracy(flagged, supported),
        "auroc": auroc(scores, supported),
        "ece": calibration_error(scores, supported, 10),
    }
    report: dict[str, Any] = {"n": len(scores)} | {name: round(value, 4) for name, value in found.items() if value is not None}
    return report | {"interval": [round(bound, 4) for bound in interval] if interval else None}


def overlap(table: Table, index: NDArray[np.int64]) -> dict[str, float]:
    """Return what word coverage reaches on these rows, at the threshold that is best for these very rows."""
    shares, supported = table.values[index, _OVERLAP], table.supported[index]
    best = max(balanced_accuracy(shares >= at, supported) or 0.0 for at in np.unique(shares))
    return {"auroc": round(auroc(shares, supported) or 0.0, 4), "best_balanced_accuracy": round(best, 4)}


def unseen_sets(table: Table) -> dict[str, Any]:
    """Return, per public set, the measures of a fit that never saw the set."""
    report = {}
    for name in PUBLIC:
        out, rest = np.flatnonzero(table.sources == name), np.flatnonzero(table.sources != name)
        fit = Fit(table, rest)
        scores = fit.chances(table, out)
        report[name] = measure(scores, table.supported[out], scores >= fit.threshold) | {"overlap": overlap(table, out)}
    return report


def unseen_items(table: Table) -> dict[str, Any]:
    """Return, per public set, the measures of fits that saw other items of the set; no claim or text is on both sides."""
    scores, flagged = np.zeros(len(table.supported)), np.zeros(len(table.supported), dtype=np.bool_)
    for seen, out in GroupKFold(5).split(table.values, groups=table.groups):
        fit = Fit(table, seen)
        scores[out] = fit.chances(table, out)
        flagged[out] = scores[out] >= fit.threshold
    chosen = {name: table.sources == name for name in PUBLIC}
    return {name: measure(scores[at], table.supported[at], flagged[at]) for name, at in chosen.items()}


def copies(scorer: SupportScorer, data: Path) -> dict[str, Any]:
    """Return the share of near-copies of unseen documents that the shipped scorer judges right, by their fault."""
    right: dict[str, list[bool]] = {}
    for pair in near_copies(data, test=True):
        found = scorer.score(pair.claim, pair.passages)
        passes = found.supported and found.overreach is None
        right.setdefault(pair.source, []).append(passes == pair.supported)
    return {name: {"n": len(hits), "accuracy": round(float(np.mean(hits)), 4)} for name, hits in right.items()}


def main() -> None:
    """Fit, measure and write `support.json` and `metrics.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    data = parser.parse_args().data
    encoder = Encoder.load()
    table = Table([*list(cg2c(data))[::_CG2C_EVERY], *public(data), *near_copies(data, test=False)])
    report: dict[str, Any] = {"pairs": len(table.supported), "unseen_set": unseen_sets(table), "unseen_items": unseen_items(table)}
    fit = Fit(table, np.arange(len(table.supported)))
    content = {"version": VERSION, "encoder": encoder.identity.key(), "threshold": round(fit.threshold, 4), "words": fit.content()}
    (HERE / WEIGHTS_FILE).write_text(json.dumps(content) + "\n", encoding="utf-8")
    report |= {"near_copies_unseen_documents": copies(SupportScorer.load(HERE, encoder), data), "threshold": content["threshold"]}
    (HERE / "metrics.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
