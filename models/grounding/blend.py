"""Fits what decides where the entailment model has read a pair, and measures words and model together on pairs that neither saw."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from forest import Fit, Flags, Numbers, Table, best_threshold, logit
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

from encoders.grounding import LOGIT_FEATURES, with_logit
from encoders.metrics import auroc

# Chances of support between which the words do not decide alone; a faulty copy of a passage looks nearly certain to them.
SURE = (0.1, 0.97)
Places = NDArray[np.int64]


@dataclass(frozen=True)
class Read:
    """What judges that did not see a row say of it: logits of the words and of the model, for all rows of a table."""

    words: Numbers
    model: Numbers


@dataclass(frozen=True)
class Blend:
    """Logistic regression over LOGIT_FEATURES, by their spread in the rows fitted, and its threshold."""

    scale: StandardScaler
    model: LogisticRegression
    threshold: float

    @classmethod
    def fit(cls, table: Table, read: Read, index: Places) -> "Blend":
        """Fit on the rows of `index`; every set counts the same."""
        values, supported, sources = inputs(table, read, index), table.supported[index], table.sources[index]
        weights = np.zeros(len(index))
        for source in set(sources):
            weights[sources == source] = len(index) / (sources == source).sum()
        scale = StandardScaler().fit(values)
        model = LogisticRegression(C=0.1, max_iter=1000).fit(scale.transform(values), supported, sample_weight=weights / weights.mean())
        unset = cls(scale, model, 0.5)
        return cls(scale, model, best_threshold(unset.chances(table, read, index), supported, sources))

    def chances(self, table: Table, read: Read, index: Places) -> Numbers:
        """Return the chance of support of the rows as the scorer gives it when it reads every unsure claim."""
        alone = 1 / (1 + np.exp(-read.words[index]))
        both = self.model.predict_proba(self.scale.transform(inputs(table, read, index)))[:, 1]
        unsure = (alone > SURE[0]) & (alone < SURE[1])
        return np.minimum(np.where(unsure, both, alone), table.most[index])

    def content(self, words: Fit) -> dict[str, Any]:
        """Return trees, weights and band as the scorer reads them; `moved` puts the trees' own threshold onto this one."""
        slopes = self.model.coef_[0] / self.scale.scale_
        weights = dict(zip(LOGIT_FEATURES, (round(float(weight), 6) for weight in slopes), strict=True))
        bias = round(float(self.model.intercept_[0] - slopes @ self.scale.mean_), 6)
        moved = round(logit(self.threshold) - logit(words.threshold), 6)
        return {
            "threshold": self.threshold, "words": words.content(), "moved": moved, "full": {"weights": weights, "bias": bias}, "sure": SURE,
        }  # fmt: skip


def inputs(table: Table, read: Read, index: Places) -> Numbers:
    """Return LOGIT_FEATURES of the rows of `index` (rows, features)."""
    return np.array([with_logit(read.words[row], table.values[row], read.model[row]) for row in index])


def held_out(table: Table, words: Fit, read: Read, measure: Callable[[Numbers, Flags, Flags], dict[str, Any]]) -> dict[str, Any]:
    """Return, per set, the measures on the held-out quarter: words alone, and with the model, fitted on the spared rows and other folds."""
    index, spared = np.flatnonzero(table.held_out), np.flatnonzero(table.spared)
    alone, together = words.chances(table, index), np.zeros(len(index))
    flagged: Flags = np.zeros(len(index), dtype=np.bool_)
    for seen, out in GroupKFold(5).split(index, groups=table.groups[index]):
        blend = Blend.fit(table, read, np.concatenate([spared, index[seen]]))
        together[out] = blend.chances(table, read, index[out])
        flagged[out] = together[out] >= blend.threshold
    report = {}
    for name in sorted(set(table.sources[index])):
        own = table.sources[index] == name
        gold, logits = table.supported[index][own], read.model[index][own]
        report[str(name)] = {
            "words": measure(alone[own], gold, alone[own] >= words.threshold),
            "model": measure(1 / (1 + np.exp(-logits)), gold, logits >= 0),
            "together": measure(together[own], gold, flagged[own]),
        }
    return report


def half(table: Table, read: Read, measure: Callable[[Numbers, Flags, Flags], dict[str, Any]]) -> dict[str, Any]:
    """Return, per set, the measures on spared and held-out rows together, each judged by what was fitted on the others."""
    parts = np.flatnonzero(table.spared), np.flatnonzero(table.held_out)
    index = np.concatenate(parts)
    blends = [Blend.fit(table, read, part) for part in reversed(parts)]
    chances = [blend.chances(table, read, part) for blend, part in zip(blends, parts, strict=True)]
    flagged = np.concatenate([chance >= blend.threshold for blend, chance in zip(blends, chances, strict=True)])
    found = {str(name): table.sources[index] == name for name in sorted(set(table.sources[index]))}
    return {name: measure(np.concatenate(chances)[own], table.supported[index][own], flagged[own]) for name, own in found.items()}


def unseen_sets(table: Table, logits: Mapping[str, Numbers], measure: Callable[[Numbers, Flags, Flags], dict[str, Any]]) -> dict[str, Any]:
    """Return, per set, the measures on its held-out quarter when trees, model and what weighs them never saw the set.

    `logits` holds, per set, those of a model that saw nothing of it.
    """
    report = {}
    judged = np.flatnonzero(table.held_out)
    for name, own in logits.items():
        words = Fit(table, np.flatnonzero(~table.held_out & (table.sources != name)))
        read = Read(words.logits(table, np.arange(len(own))), own)
        blend = Blend.fit(table, read, judged[table.sources[judged] != name])
        out = judged[table.sources[judged] == name]
        gold, chances, alone = table.supported[out], blend.chances(table, read, out), words.chances(table, out)
        report[name] = {
            "words": measure(alone, gold, alone >= words.threshold),
            "model_auroc": auroc(own[out], gold),
            "together": measure(chances, gold, chances >= blend.threshold),
        }
    return report
