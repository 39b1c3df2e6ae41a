"""The rows that the support score is fitted on, and the boosted trees that judge them by words."""

# ruff: noqa: SIM905 - a list of words reads best as a sentence

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pairs import PUBLIC, Pair
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from encoders.alignment import Aligner
from encoders.grounding import CONTRADICTED, FABRICATED, FEATURES, features, gather, turned_round
from encoders.metrics import balanced_accuracy
from encoders.quantities import Figures, missing

# What a line through agreement and faults says holds on sets that nothing has seen better than trees do.
_LINE = (
    "all_coverage pair_coverage soft_coverage exact_coverage phrase_coverage worst_phrases lost_weight worst_three new_words "
    "numbers_missing names_missing negated_copy opposite_copy number_copy evidence_length claim_length bigram_coverage"
).split()
# Balanced accuracies this near are the same; the very best is chance.
_AS_GOOD = 0.005
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
    """Features, answers, sources and groups of pairs; `most` is what its rules leave to a claim."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        """Compute the features as the scorer does."""
        aligner, values, most = Aligner.load(), [], []
        for pair in pairs:
            figures = Figures(pair.passages)
            evidence = gather(figures.respelled(pair.claim), pair.passages)
            values.append(features(evidence, aligner))
            invented = bool(missing(evidence.claim.text, figures))
            most.append(FABRICATED if invented else CONTRADICTED if turned_round(evidence) else 1.0)
        self.values = np.nan_to_num(np.array(values, dtype=np.float64))
        self.most = np.array(most)
        self.supported = np.array([pair.supported for pair in pairs])
        self.sources = np.array([pair.source.split(":")[0] for pair in pairs])
        self.held_out = np.array([pair.source in PUBLIC and pair.held_out for pair in pairs])
        self.spared = np.array([pair.spared for pair in pairs])
        self.groups = np.array([f"{pair.source}|{pair.group or number}" for number, pair in enumerate(pairs)])


class Fit:
    """Boosted trees that rise with agreement and fall with faults, and a line, half each; every source counts, its answers as they fall."""

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
        self._places = [FEATURES.index(name) for name in _LINE]
        self._scale = StandardScaler().fit(values[:, self._places])
        line = LogisticRegression(C=0.1, max_iter=2000)
        self._line = line.fit(self._scale.transform(values[:, self._places]), supported, sample_weight=weights)
        self.threshold = best_threshold(self.chances(table, index), supported, sources)

    def logits(self, table: Table, index: NDArray[np.int64]) -> Numbers:
        """Return the logit of support of the rows."""
        values = table.values[index]
        line = self._line.decision_function(self._scale.transform(values[:, self._places]))
        return np.asarray((self.model.decision_function(values) + line) / 2, dtype=np.float64)

    def chances(self, table: Table, index: NDArray[np.int64]) -> Numbers:
        """Return the chance of support of the rows, as far as the rules leave it."""
        return np.minimum(1 / (1 + np.exp(-self.logits(table, index))), table.most[index])

    def content(self) -> dict[str, Any]:
        """Return the trees as the scorer reads them; a leaf is its own left child."""
        trees = []
        for (predictor,) in self.model._predictors:  # noqa: SLF001 - scikit-learn has no other way out
            nodes, count = predictor.nodes, np.arange(len(predictor.nodes))
            leaf = nodes["is_leaf"].astype(bool)
            left, right = (np.where(leaf, count, nodes[side]) for side in ("left", "right"))
            tree = {"feature": nodes["feature_idx"], "left": left, "right": right}
            # A threshold may be the very value of a row, so it keeps all of its digits.
            numbers = {"threshold": np.where(leaf, 0.0, nodes["num_threshold"]), "value": np.round(nodes["value"] / 2, 6)}
            trees.append({name: [int(item) for item in part] for name, part in tree.items()}
                         | {name: [float(item) for item in part] for name, part in numbers.items()})  # fmt: skip
        slope = np.zeros(len(FEATURES))
        slope[self._places] = self._line.coef_[0] / self._scale.scale_ / 2
        start = float(np.ravel(self.model._baseline_prediction)[0])  # noqa: SLF001
        start += float(self._line.intercept_[0] - (self._line.coef_[0] * self._scale.mean_ / self._scale.scale_).sum())
        line = [float(weight) for weight in np.round(slope, 6)]
        return {"features": list(FEATURES), "bias": round(start / 2, 6), "slope": line, "trees": trees}


def logit(chance: float) -> float:
    """Return the logit of a chance."""
    return float(np.log(chance / (1 - chance)))


def best_threshold(scores: Numbers, supported: Flags, sources: NDArray[Any]) -> float:
    """Return the middle of the thresholds with the best balanced accuracy, averaged over the public sources that are there."""
    names = [name for name in PUBLIC if (sources == name).any()] or sorted(set(sources))

    def mean(threshold: float) -> float:
        found = [balanced_accuracy(scores[sources == name] >= threshold, supported[sources == name]) for name in names]
        return float(np.mean([value for value in found if value is not None]))

    found = [(mean(at), at) for at in np.quantile(scores, np.linspace(0.02, 0.98, 97))]
    return float(np.median([at for value, at in found if value >= max(found)[0] - _AS_GOOD]))
