"""Fits the safety heads, sets their thresholds on harmless texts, and reports per source and category.

Usage: python models/safety/train.py --data FOLDER_OF_PUBLIC_SETS [--cache FILE]
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import texts
from laboratory import Laboratory, Scores, Table, at_fpr, by_source, readable
from numpy.typing import NDArray
from pools import Item
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from texts import CATEGORIES, HERE, Text

from encoders import TextClassifier
from encoders.features import NgramHasher
from encoders.fitting import Recipe
from encoders.metrics import auroc, average_precision
from encoders.safety import SAFETY_SETTINGS, SELF_HARM, UNSAFE, combined, logits, yes

VERSION = "safety@v1"
HASHER = NgramHasher(buckets=16384, low=4, longest=1200)
RECIPE = Recipe(strength=2.0, vector_scale=4.0, ngram_scale=1.5, iterations=30, hasher=HASHER)
# Of ordinary texts, and of held-out texts that share the words of unsafe ones. Self-harm goes to a person, so more of it may.
CALM_FPR = dict.fromkeys((UNSAFE, *CATEGORIES), 0.005) | {SELF_HARM: 0.01}
TWIN_FPR = dict.fromkeys((UNSAFE, *CATEGORIES), 0.03) | {SELF_HARM: 0.06}
_FOLDS = 3
# The one set whose labels were made for moderation counts more than those that only resemble it.
_WEIGHTS = {"openai_moderation": 3.0, "davidson": 0.6}
_LEFT_OUT = ("openai_moderation", "davidson", "surge")
Places = NDArray[np.int64]


class Corpus:
    """Training texts, embedded once, with labels for every head."""

    def __init__(self, lab: Laboratory, rows: Sequence[Text]) -> None:
        """Embed the rows, each text once; the first label that a text comes with counts."""
        unique: dict[str, Text] = {}
        for row in rows:
            unique.setdefault(readable(row.text), row)
        self.lab, self.rows = lab, list(unique.values())
        self.table: Table = lab.table(list(unique))
        self.sources = np.array([row.source for row in self.rows])

    def labels(self, head: str) -> NDArray[np.int64]:
        """Return 1, 0, or -1 where it is not known."""
        if head == UNSAFE:
            return np.array([int(row.unsafe) for row in self.rows])
        return np.array([-1 if (known := row.labels[head]) is None else int(known) for row in self.rows])

    def fit(self, head: str, places: Places) -> TextClassifier:
        """Fit a head on those of the rows whose label is known."""
        labels = self.labels(head)
        chosen = [int(place) for place in places if labels[place] >= 0]
        names = ["yes" if labels[place] else "no" for place in chosen]
        weights = [_WEIGHTS.get(self.rows[place].source, 1.0) for place in chosen]
        return self.lab.fit(f"safety-{head}", self.table.take(chosen), names, RECIPE, weights)

    def fit_unsafe(self, places: Places) -> TextClassifier:
        """Fit the head for unsafe at all: half of it knows only the moderation set, half knows everything."""
        own = places[self.sources[places] == "openai_moderation"]
        if not len(own):
            return self.fit(UNSAFE, places)
        first, second = self.fit(UNSAFE, own), self.fit(UNSAFE, places)
        part = self.table.take([int(place) for place in places])
        spread = [float(np.std(logits(yes(head, part.texts, part.vectors, part.grams)))) for head in (first, second)]
        return first.blended(second, 0.5, 0.5 * spread[0] / spread[1])

    def fit_all(self, places: Places) -> dict[str, TextClassifier]:
        """Fit every head that has texts of both kinds."""
        known = [name for name in CATEGORIES if {0, 1} <= set(self.labels(name)[places].tolist())]
        return {UNSAFE: self.fit_unsafe(places)} | {name: self.fit(name, places) for name in known}


def every_share(heads: Mapping[str, TextClassifier], table: Table) -> dict[str, Scores]:
    """Return the probability of yes of every head for every row of a table."""
    return {name: yes(head, table.texts, table.vectors, table.grams) for name, head in heads.items()}


def measured(labels: NDArray[np.int64], scores: Scores, threshold: float) -> dict[str, Any]:
    """Return n, AUROC, AUPRC, recall and false-positive rate of the rows that have a label."""
    known = labels >= 0
    positive, part = labels[known] == 1, scores[known]
    return {
        "n": int(known.sum()),
        "positive": int(positive.sum()),
        "auroc": _rounded(auroc(part, positive)),
        "auprc": _rounded(average_precision(part, positive)),
        "recall": _rounded(float((part[positive] >= threshold).mean())) if positive.any() else None,
        "fpr": _rounded(float((part[~positive] >= threshold).mean())) if not positive.all() else None,
    }


def tfidf(corpus: Corpus, source: str) -> dict[str, Any]:
    """Return what words alone reach, out of fold, trained on the same rows."""
    inside = np.flatnonzero(corpus.sources == source)
    labels, scores = corpus.labels(UNSAFE), np.zeros(len(inside))
    words = np.array([row.text for row in corpus.rows], dtype=object)
    for fold in range(_FOLDS):
        test = np.arange(len(inside)) % _FOLDS == fold
        kept = np.setdiff1d(np.arange(len(words)), inside[test])
        model = make_pipeline(TfidfVectorizer(sublinear_tf=True, min_df=2), LogisticRegression(C=10, max_iter=200))
        model.fit(words[kept], labels[kept])
        scores[test] = model.predict_proba(words[inside[test]])[:, 1]
    return measured(labels[inside], scores, 0.5)


def train(lab: Laboratory) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write the heads that ship; return their settings and the report of heads that have not seen the held-out templates."""
    written, rows = list(texts.written(held_out=True)), texts.training(lab.data)
    corpus = Corpus(lab, [*rows, *written])
    known = np.arange(len({readable(row.text) for row in rows}))
    heads = corpus.fit_all(known)
    calm = lab.readings([Item(row.text, False, row.source) for row in texts.ordinary(lab.data, held_out=True)], "user")
    others = lab.readings([Item(row.text, row.unsafe, row.source) for row in written], "user")
    twins = np.array([not row.unsafe for row in written])
    quiet, found = every_share(heads, calm.table), every_share(heads, others.table)

    def bound(of_calm: Scores, of_others: Scores, name: str) -> float:
        return max(at_fpr(calm.worst(of_calm), CALM_FPR[name]), at_fpr(others.worst(of_others)[twins], TWIN_FPR[name]))

    centres = {name: round(bound(quiet[name], found[name], name), 6) for name in heads}
    of_calm, of_others = combined(quiet, centres), combined(found, centres)
    settings = {"version": VERSION, "threshold": round(bound(of_calm, of_others, UNSAFE), 6), "centres": centres}
    report: dict[str, Any] = {
        "train_rows": {"measured": len(known), "shipped": len(corpus.rows)},
        "rows_by_source": _counts(corpus.sources),
    }
    report["held_out_traffic"] = by_source(calm.items, calm.worst(of_calm), settings["threshold"])
    report["held_out_templates"] = by_source(others.items, others.worst(of_others), settings["threshold"], calm.worst(of_calm))
    report["categories"] = {
        name: {
            "calm_fpr": _rounded(float((calm.worst(quiet[name]) >= centres[name]).mean())),
            "twins_fpr": _rounded(float((others.worst(found[name])[twins] >= centres[name]).mean())),
            "held_out_templates": measured(_written_labels(written, name), others.worst(found[name]), centres[name]),
        }
        for name in CATEGORIES
    }
    shipped = corpus.fit_all(np.arange(len(corpus.rows)))
    write(shipped, settings)
    after = calm.worst(combined(every_share(shipped, calm.table), centres))
    report["shipped_held_out_traffic"] = by_source(calm.items, after, settings["threshold"])
    return settings, report | folds(corpus, centres, settings["threshold"])


def write(heads: Mapping[str, TextClassifier], settings: Mapping[str, Any]) -> None:
    """Write weights and thresholds."""
    for name, head in heads.items():
        head.save(HERE / f"{name}.npz")
    (HERE / SAFETY_SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def folds(corpus: Corpus, centres: Mapping[str, float], threshold: float) -> dict[str, Any]:
    """Return what is measured out of fold, and with whole sources left out."""
    inside = np.flatnonzero(corpus.sources == "openai_moderation")
    parts = {name: np.zeros(len(inside)) for name in (UNSAFE, *CATEGORIES)}
    everything = np.arange(len(corpus.rows))
    for fold in range(_FOLDS):
        test = np.arange(len(inside)) % _FOLDS == fold
        found = every_share(corpus.fit_all(np.setdiff1d(everything, inside[test])), corpus.table.take(inside[test].tolist()))
        for name, shares in found.items():
            parts[name][test] = shares
    own = {UNSAFE: measured(corpus.labels(UNSAFE)[inside], combined(parts, centres), threshold)}
    own |= {name: measured(corpus.labels(name)[inside], parts[name], centres[name]) for name in CATEGORIES}
    report: dict[str, Any] = {"openai_moderation_out_of_fold": own, "openai_moderation_tfidf": tfidf(corpus, "openai_moderation")}
    report["source_left_out"] = {}
    for source in _LEFT_OUT:
        inside = np.flatnonzero(corpus.sources == source)
        heads = corpus.fit_all(np.flatnonzero(corpus.sources != source))
        scores = combined(every_share(heads, corpus.table.take(inside.tolist())), centres)
        report["source_left_out"][source] = measured(corpus.labels(UNSAFE)[inside], scores, threshold)
    return report


def _written_labels(rows: Sequence[Text], name: str) -> NDArray[np.int64]:
    return np.array([-1 if (known := row.labels[name]) is None else int(known) for row in rows])


def _counts(sources: NDArray[np.str_]) -> dict[str, int]:
    names, counts = np.unique(sources, return_counts=True)
    return {str(name): int(count) for name, count in zip(names, counts, strict=True)}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def main() -> None:
    """Train all heads and write weights, thresholds and metrics."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path(".cache/vectors.sqlite"))
    options = parser.parse_args()
    settings, report = train(Laboratory(options.data, options.cache, HASHER))
    (HERE / "metrics.json").write_text(json.dumps({**settings, **report}, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
