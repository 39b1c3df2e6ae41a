"""Fits the n-gram heads that stand beside the guard, sets all thresholds on harmless texts, and reports per source.

Usage: python models/guard/fit.py --data FOLDER_OF_PUBLIC_SETS --weights FOLDER

FOLDER holds what `tune.py` wrote. The report comes from `measured.safetensors`, which has seen nothing of what it is scored on; written are
heads for `shipped.safetensors`, with thresholds at the same share of ordinary traffic.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import bench_sets as sets
import numpy as np
import rows as drawn
from laboratory import at_fpr, by_source
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from texts import CATEGORIES, Text

from encoders import TextClassifier
from encoders.features import NgramHasher, SparseRows
from encoders.fitting import Recipe, fit
from encoders.guard import TASKS, UNKNOWN, WEIGHTS_FILE, Guard, packed
from encoders.injection import ATTACK, SETTINGS_FILE, unfamiliar, weighed
from encoders.metrics import auroc, average_precision
from encoders.safety import SAFETY_SETTINGS, SELF_HARM, UNSAFE, combined, yes

HERE = Path(__file__).parent
INJECTION, SAFETY = HERE.parent / "injection", HERE.parent / "safety"
VERSIONS = {"injection": "injection@v5", "safety": "safety@v2"}
HASHER = NgramHasher(buckets=32768, low=4, longest=1200)
RECIPE = Recipe(strength=3.0, vector_scale=1.0, ngram_scale=1.5, iterations=40, hasher=HASHER)
# How much the n-grams count beside the guard's log odds.
BESIDE = dict.fromkeys(("user", "data", *CATEGORIES), 0.5) | {UNSAFE: 0.25, SELF_HARM: 1.5}
INJECTION_FPR = {"user": 0.006, "document": 0.012, "tool": 0.01}
# Of ordinary texts, and of held-out texts that share the words of unsafe ones. Self-harm goes to a person, so more of it may.
CALM_FPR = dict.fromkeys((UNSAFE, *CATEGORIES), 0.005) | {SELF_HARM: 0.01}
TWIN_FPR = dict.fromkeys((UNSAFE, *CATEGORIES), 0.03) | {SELF_HARM: 0.06}
# Ordinary traffic knows so little of some categories that a threshold set on it alone would name half of all comments after them.
LEAST = dict.fromkeys((UNSAFE, *CATEGORIES), 0.05) | {SELF_HARM: 0.0, "unsafe_request": 0.3}
Scores = NDArray[np.float64]


class Words:
    """Training rows with their n-grams, counted once."""

    def __init__(self, rows: Sequence[drawn.Row]) -> None:
        self.rows, self.grams = rows, HASHER.rows([row.text for row in rows])

    def fit(self, guard: Guard, task: str, names: tuple[str, str], *, everything: bool) -> TextClassifier:
        """Fit the n-grams of one task on rows whose label is known; `names` are those of no and yes."""
        column = TASKS.index(task)
        places = [n for n, row in enumerate(self.rows) if row.labels[column] != UNKNOWN and (everything or not row.left_out)]
        labels = [names[int(self.rows[place].labels[column])] for place in places]
        texts, nothing = [self.rows[place].text for place in places], np.zeros((len(places), len(TASKS)), dtype=np.float32)
        return fit(guard, f"guard-{task}", texts, labels, RECIPE, vectors=nothing, grams=self.grams.take(places))


def head(guard: Guard, task: str, positive: str, words: TextClassifier) -> TextClassifier:
    """Return the guard's log odds of a task plus those of its n-grams, weighed, as a classifier."""
    dense = np.zeros((len(TASKS), 2), dtype=np.float32)
    dense[TASKS.index(task), words.config.labels.index(positive)] = 1.0
    own = TextClassifier(guard, words.config, dense, np.zeros((HASHER.buckets, 2), dtype=np.float32), np.zeros(2, dtype=np.float32))
    return own.blended(words, 1.0, BESIDE[task])


class Marked:
    """Sets of texts with the share that every head gives them."""

    def __init__(
        self, guard: Guard, words: Mapping[str, TextClassifier], found: Mapping[str, sets.Read], grams: Mapping[str, SparseRows]
    ) -> None:
        self.injection = {name: head(guard, task, ATTACK, words[task]) for name, task in {"user": "user", "document": "data"}.items()}
        self.safety = {name: head(guard, name, "yes", words[name]) for name in (UNSAFE, *CATEGORIES)}
        self._found, self._grams = found, grams

    def attack(self, name: str, channel: str) -> Scores:
        """Return the worst part's probability of an attack for every text of a set."""
        read = self._found[name]
        one = self.injection["user" if channel == "user" else "document"]
        shares = one.probabilities(read.parts, read.odds, self._grams[name])[:, one.config.labels.index(ATTACK)]
        if channel == "user":
            shares = weighed(shares, read.parts)
        elif channel == "document":
            starts = [0, *read.ends[:-1]]
            shares = np.concatenate([unfamiliar(shares[a:b], read.parts[a:b]) for a, b in zip(starts, read.ends, strict=True)])
        return read.worst(shares)

    def shares(self, name: str) -> dict[str, Scores]:
        """Return every safety head's probability for every part of a set."""
        read = self._found[name]
        return {key: yes(one, read.parts, read.odds, self._grams[name]) for key, one in self.safety.items()}

    def worst(self, name: str, shares: Scores) -> Scores:
        """Return the highest of every text's parts."""
        return self._found[name].worst(shares)


def injection_report(marked: Marked, found: Mapping[str, sets.Read]) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the thresholds of all channels, and recall and false-positive rate of every source."""
    thresholds: dict[str, float] = {}
    report: dict[str, Any] = {}
    for channel, calm, others in (
        ("user", "calm_users", "other_users"),
        ("document", "documents", "hidden"),
        ("tool", "tools", "poisoned"),
    ):
        quiet = marked.attack(calm, channel)
        thresholds[channel] = round(at_fpr(quiet, INJECTION_FPR[channel]), 6)
        report[channel] = {
            "harmless": by_source(found[calm].items, quiet, thresholds[channel]),
            "others": by_source(found[others].items, marked.attack(others, channel), thresholds[channel], quiet),
        }
    return thresholds, report


def measured(labels: Sequence[bool | None], scores: Scores, threshold: float) -> dict[str, Any]:
    """Return n, AUROC, AUPRC, recall and false-positive rate of the rows that have a label."""
    known = np.array([label is not None for label in labels])
    positive, part = np.array([bool(label) for label in labels])[known], scores[known]
    return {
        "n": int(known.sum()),
        "positive": int(positive.sum()),
        "auroc": _rounded(auroc(part, positive)),
        "auprc": _rounded(average_precision(part, positive)),
        "recall": _rounded(float((part[positive] >= threshold).mean())) if positive.any() else None,
        "fpr": _rounded(float((part[~positive] >= threshold).mean())) if not positive.all() else None,
    }


def safety_report(
    marked: Marked, found: Mapping[str, sets.Read], own: Sequence[Text], written: Sequence[Text]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of the safety detector, and what they reach."""
    quiet, others = marked.shares("calm_users"), marked.shares("written_safety")
    twins = np.array([not row.unsafe for row in written])

    def bound(of_calm: Scores, of_others: Scores, name: str) -> float:
        calm, known = marked.worst("calm_users", of_calm), marked.worst("written_safety", of_others)[twins]
        return round(max(at_fpr(calm, CALM_FPR[name]), at_fpr(known, TWIN_FPR[name])), 6)

    centres = {name: max(LEAST[name], bound(quiet[name], others[name], name)) for name in marked.safety}
    of_calm, of_others = combined(quiet, centres), combined(others, centres)
    threshold = bound(of_calm, of_others, UNSAFE)
    shares, surge = marked.shares("moderation"), combined(marked.shares("surge"), centres)
    report: dict[str, Any] = {
        "ordinary": by_source(found["calm_users"].items, marked.worst("calm_users", of_calm), threshold),
        "templates": by_source(found["written_safety"].items, marked.worst("written_safety", of_others), threshold),
        "surge": by_source(found["surge"].items, marked.worst("surge", surge), threshold),
        "moderation": {
            UNSAFE: measured([row.unsafe for row in own], marked.worst("moderation", combined(shares, centres)), threshold),
            "head alone": measured([row.unsafe for row in own], marked.worst("moderation", shares[UNSAFE]), centres[UNSAFE]),
        }
        | {
            name: measured([row.labels[name] for row in own], marked.worst("moderation", shares[name]), centres[name])
            for name in CATEGORIES
        },
        "templates_by_category": {
            name: measured([row.labels[name] for row in written], marked.worst("written_safety", others[name]), centres[name])
            for name in CATEGORIES
        },
    }
    return {"threshold": threshold, "centres": centres}, report


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def at_same_share(before: Scores, threshold: float, after: Scores) -> float:
    """Return the threshold that flags of `after` what `threshold` flags of `before`."""
    return round(at_fpr(after, float((before >= threshold).mean())), 6)


def load(weights: Path, name: str) -> Guard:
    """Pack the weights of one run and open them as the service does."""
    folder = weights / name
    folder.mkdir(exist_ok=True)
    save_file(packed(load_file(weights / f"{name}.safetensors")), folder / WEIGHTS_FILE)
    return Guard.load(folder)


def main() -> None:
    """Fit, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    options = parser.parse_args()
    words = Words(drawn.draw(options.data))
    tasks = dict.fromkeys(("user", "data"), ("harmless", ATTACK)) | dict.fromkeys((UNSAFE, *CATEGORIES), ("no", "yes"))
    own, written = sets.moderation(options.data), sets.written_safety()
    marks: dict[str, Marked] = {}
    reports: dict[str, Any] = {}
    for name in ("measured", "shipped"):
        guard = load(options.weights, name)
        found = sets.read_all(guard, options.data)
        grams = {key: HASHER.rows(read.parts) for key, read in found.items()}
        fitted = {task: words.fit(guard, task, names, everything=name == "shipped") for task, names in tasks.items()}
        marked = marks[name] = Marked(guard, fitted, found, grams)
        reports[name] = {"injection": injection_report(marked, found), "safety": safety_report(marked, found, own, written)}
        print(json.dumps(reports[name], indent=1), flush=True)
    write(marks, reports, options.weights)


def write(marks: Mapping[str, Marked], reports: Mapping[str, Any], weights: Path) -> None:
    """Write heads, thresholds and metrics; the thresholds of safety flag as much ordinary traffic as those that were measured."""
    before, after = (marks[name].shares("calm_users") for name in ("measured", "shipped"))
    settings = reports["measured"]["safety"][0]

    def moved(of_before: Scores, of_after: Scores, threshold: float) -> float:
        calm = [mark.worst("calm_users", part) for mark, part in zip(marks.values(), (of_before, of_after), strict=True)]
        return at_same_share(calm[0], threshold, calm[1])

    centres = {name: max(LEAST[name], moved(before[name], after[name], value)) for name, value in settings["centres"].items()}
    threshold = moved(combined(before, settings["centres"]), combined(after, centres), settings["threshold"])
    for name, one in marks["shipped"].injection.items():
        one.save(INJECTION / f"{name}.npz")
    for name, one in marks["shipped"].safety.items():
        one.save(SAFETY / f"{name}.npz")
    (HERE / WEIGHTS_FILE).write_bytes((weights / "shipped" / WEIGHTS_FILE).read_bytes())
    _write(INJECTION / SETTINGS_FILE, {"version": VERSIONS["injection"], "thresholds": reports["shipped"]["injection"][0]})
    _write(SAFETY / SAFETY_SETTINGS, {"version": VERSIONS["safety"], "threshold": threshold, "centres": centres})
    _write(INJECTION / "metrics.json", {name: _named(reports[name]["injection"], "thresholds") for name in reports})
    _write(SAFETY / "metrics.json", {name: _named(reports[name]["safety"], "settings") for name in reports})


def _named(pair: tuple[Any, Any], what: str) -> dict[str, Any]:
    return {what: pair[0], **pair[1]}


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
