"""Fits what decides where the entailment model has read a pair, and measures words and model together on pairs that neither saw."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from forest import Fit, Flags, Numbers, Table, best_threshold, logit
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from encoders.grounding import LOGIT_FEATURES, with_logit
from encoders.metrics import auroc

# Chances of support between which the words do not decide alone; a faulty copy of a passage looks nearly certain to them.
SURE = (0.05, 0.97)
Places = NDArray[np.int64]


@dataclass(frozen=True)
class Blend:
    """Logistic regression over LOGIT_FEATURES, its threshold, and the trees whose logit it takes."""

    words: Fit
    model: LogisticRegression
    threshold: float

    @classmethod
    def fit(cls, table: Table, words: Fit, logits: Numbers, index: Places) -> "Blend":
        """Fit on the rows of `index`, which the trees have not seen; every set counts the same."""
        values, supported, sources = inputs(table, words.logits(table, index), logits, index), table.supported[index], table.sources[index]
        weights = np.zeros(len(index))
        for source in set(sources):
            weights[sources == source] = len(index) / (sources == source).sum()
        model = LogisticRegression(C=1.0, max_iter=1000).fit(values, supported, sample_weight=weights / weights.mean())
        unset = cls(words, model, 0.5)
        return cls(words, model, best_threshold(unset.chances(table, logits, index), supported, sources))

    def chances(self, table: Table, logits: Numbers, index: Places) -> Numbers:
        """Return the chance of support of the rows as the scorer gives it when it reads every unsure claim."""
        words = self.words.logits(table, index)
        alone = 1 / (1 + np.exp(-words))
        both = self.model.predict_proba(inputs(table, words, logits, index))[:, 1]
        unsure = (alone > SURE[0]) & (alone < SURE[1])
        return np.minimum(np.where(unsure, both, alone), table.most[index])

    def content(self) -> dict[str, Any]:
        """Return trees, weights and band as the scorer reads them; one threshold serves both, so the trees' own is moved onto it."""
        moved = logit(self.threshold) - logit(self.words.threshold)
        weights = dict(zip(LOGIT_FEATURES, (round(float(weight), 6) for weight in self.model.coef_[0]), strict=True))
        bias = float(self.model.intercept_[0]) - weights["words"] * moved
        band = [round(float(1 / (1 + np.exp(-logit(end) - moved))), 4) for end in SURE]
        trees = self.words.content(moved)
        return {"threshold": self.threshold, "words": trees, "full": {"weights": weights, "bias": round(bias, 6)}, "sure": band}


def inputs(table: Table, words: Numbers, logits: Numbers, index: Places) -> Numbers:
    """Return LOGIT_FEATURES of the rows of `index` (rows, features)."""
    return np.array([with_logit(word, table.values[row], logits[row]) for word, row in zip(words, index, strict=True)])


def held_out(table: Table, words: Fit, logits: Numbers, measure: Callable[[Numbers, Flags, Flags], dict[str, Any]]) -> dict[str, Any]:
    """Return, per set, the measures on the held-out quarter: words alone, and with the model, fitted without the rows judged."""
    index = np.flatnonzero(table.held_out)
    alone, together = words.chances(table, index), np.zeros(len(index))
    flagged: Flags = np.zeros(len(index), dtype=np.bool_)
    for seen, out in GroupKFold(5).split(index, groups=table.groups[index]):
        blend = Blend.fit(table, words, logits, index[seen])
        together[out] = blend.chances(table, logits, index[out])
        flagged[out] = together[out] >= blend.threshold
    report = {}
    for name in sorted(set(table.sources[index])):
        own = table.sources[index] == name
        gold = table.supported[index][own]
        report[str(name)] = {
            "words": measure(alone[own], gold, alone[own] >= words.threshold),
            "model": measure(1 / (1 + np.exp(-logits[index][own])), gold, logits[index][own] >= 0),
            "together": measure(together[own], gold, flagged[own]),
        }
    return report


def unseen_sets(table: Table, logits: Mapping[str, Numbers], measure: Callable[[Numbers, Flags, Flags], dict[str, Any]]) -> dict[str, Any]:
    """Return, per set, the measures on its held-out quarter when trees, model and what weighs them never saw the set.

    `logits` holds, per set, those of a model that saw nothing of it.
    """
    report = {}
    judged = np.flatnonzero(table.held_out)
    for name, read in logits.items():
        words = Fit(table, np.flatnonzero(~table.held_out & (table.sources != name)))
        blend = Blend.fit(table, words, read, judged[table.sources[judged] != name])
        out = judged[table.sources[judged] == name]
        gold, chances, alone = table.supported[out], blend.chances(table, read, out), words.chances(table, out)
        report[name] = {
            "words": measure(alone, gold, alone >= words.threshold),
            "model_auroc": auroc(read[out], gold),
            "together": measure(chances, gold, chances >= blend.threshold),
        }
    return report
