"""Fits the two injection heads, sets their thresholds on ordinary traffic, and reports per source.

Usage: python models/injection/train.py --data FOLDER_OF_PUBLIC_SETS [--cache FILE]
"""

import argparse
import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pools
from numpy.typing import NDArray
from pools import Item
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from encoders import Encoder, TextClassifier
from encoders.features import NgramHasher
from encoders.fitting import Recipe, fit
from encoders.injection import ATTACK, SETTINGS_FILE, windows
from encoders.metrics import auroc, threshold_at_fpr
from encoders.normalise import normalise
from encoders.vector_cache import VectorCache

HERE = Path(__file__).parent
VERSION = "injection@v1"
RECIPE = Recipe(strength=3.0, vector_scale=4.0, ngram_scale=1.5, iterations=60, hasher=NgramHasher(buckets=32768, low=4))
TRAFFIC_FPR = 0.01
DOCUMENT_FPR = 0.02
_TWIN = 0.97
Scores = NDArray[np.float64]


class Lab:
    """Encoder, cache and scoring of windows, as the detector does it in service."""

    def __init__(self, data: Path, cache: Path) -> None:
        """Open the cache."""
        self.data = data
        self.encoder = Encoder.load()
        self.cache = VectorCache(self.encoder, cache)

    def fit(self, name: str, items: Iterable[Item]) -> TextClassifier:
        """Fit a head on normalised, distinct texts."""
        unique = {readable(item.text): item.attack for item in items}
        texts = list(unique)
        labels = [ATTACK if attack else "harmless" for attack in unique.values()]
        return fit(self.encoder, name, texts, labels, RECIPE, vectors=self.cache.encode(texts))

    def scores(self, head: TextClassifier, items: list[Item], channel: str) -> Scores:
        """Return the worst window's probability of every text."""
        parts = [windows(readable(item.text), channel) for item in items]
        flat = [part for group in parts for part in group]
        shares = head.probabilities(flat, self.cache.encode(flat))[:, head.config.labels.index(ATTACK)]
        ends = np.cumsum([len(group) for group in parts])
        return np.array([shares[end - len(group) : end].max() for group, end in zip(parts, ends, strict=True)], dtype=np.float64)

    def without_twins(self, items: list[Item], known: list[Item]) -> list[Item]:
        """Drop the texts that nearly equal a known one."""
        vectors = self.cache.encode([readable(item.text) for item in known])
        mine = self.cache.encode([readable(item.text) for item in items])
        return [item for item, row in zip(items, mine, strict=True) if float((vectors @ row).max()) < _TWIN]


def readable(text: str) -> str:
    """Return what the heads see of a text."""
    return normalise(text).everything()


def by_source(items: list[Item], scores: Scores, threshold: float) -> dict[str, Any]:
    """Return recall, false-positive rate and AUROC for every source."""
    groups: dict[str, list[int]] = defaultdict(list)
    for place, item in enumerate(items):
        groups[item.source].append(place)
    report: dict[str, Any] = {}
    for source, places in sorted(groups.items()):
        positive = np.array([items[place].attack for place in places])
        part = scores[places]
        entry: dict[str, Any] = {"n": len(places)}
        if positive.any():
            entry["recall"] = round(float((part[positive] >= threshold).mean()), 4)
        if not positive.all():
            entry["fpr"] = round(float((part[~positive] >= threshold).mean()), 4)
        if (area := auroc(part, positive)) is not None:
            entry["auroc"] = round(area, 4)
        report[source] = entry
    return report


def against_traffic(items: list[Item], scores: Scores, calm: Scores, threshold: float) -> dict[str, Any]:
    """Return `by_source`, with the AUROC of attack-only sources against ordinary traffic."""
    report = by_source(items, scores, threshold)
    for source, entry in report.items():
        part = scores[[item.source == source and item.attack for item in items]]
        if "auroc" not in entry and len(part):
            both = np.concatenate([part, calm])
            entry["auroc_against_traffic"] = round(auroc(both, np.arange(len(both)) < len(part)) or 0.0, 4)
    return report


def baselines(train: list[Item], calm: list[Item], foreign: list[Item]) -> dict[str, Any]:
    """Return recall at the same false-positive rate of length, of trigger words and of TF-IDF."""
    triggers = ("ignore", "instruction", "system prompt", "jailbreak", "disregard", "bypass", "pretend", "override", "reveal")
    words = TfidfVectorizer(sublinear_tf=True, min_df=2)
    model = make_pipeline(words, LogisticRegression(C=10, max_iter=200))
    model.fit([item.text for item in train], [item.attack for item in train])
    scorers: dict[str, Callable[[list[Item]], Scores]] = {
        "length": lambda items: np.array([float(len(item.text)) for item in items]),
        "trigger_words": lambda items: np.array([float(sum(word in item.text.lower() for word in triggers)) for item in items]),
        "tfidf": lambda items: model.predict_proba([item.text for item in items])[:, 1],
    }
    report = {}
    for name, score in scorers.items():
        negatives = score(calm)
        threshold = threshold_at_fpr(negatives, np.zeros(len(negatives), dtype=bool), TRAFFIC_FPR)
        report[name] = by_source(foreign, score(foreign), threshold)
    return report


def train_user(lab: Lab) -> tuple[float, dict[str, Any]]:
    """Fit and write the head for what users write; return its threshold and report."""
    train = [*pools.attacks(lab.data, "train"), *pools.traffic(lab.data, held_out=False)]
    train += [Item(text, False, "seeds") for text in pools.seed_sentences("harmless", 250)]
    test = lab.without_twins(list(pools.attacks(lab.data, "test")), train)
    calm, foreign = list(pools.traffic(lab.data, held_out=True)), list(pools.unseen(lab.data))
    head = lab.fit("injection-user", train)
    quiet = lab.scores(head, calm, "user")
    threshold = threshold_at_fpr(quiet, np.zeros(len(quiet), dtype=bool), TRAFFIC_FPR)
    head.save(HERE / "user.npz")
    report = {
        "train_rows": len(train),
        "held_out_traffic": by_source(calm, quiet, threshold),
        "test_of_training_sources": by_source(test, lab.scores(head, test, "user"), threshold),
        "unseen_sources": against_traffic(foreign, lab.scores(head, foreign, "user"), quiet, threshold),
        "baselines_unseen_sources": baselines(train, calm, foreign),
    }
    return threshold, report


def poisoned(emails: list[str], attacks: list[Item]) -> list[Item]:
    """Return every attack in one e-mail each, at its start, middle or end by turns."""
    chance = random.Random(5)
    items = []
    for number, attack in enumerate(attacks):
        lines = chance.choice(emails).replace("|CONTENT:", "\nCONTENT:").split(". ")
        place = (0, len(lines) // 2, len(lines))[number % 3]
        text = "\n".join(part for part in (". ".join(lines[:place]), attack.text, ". ".join(lines[place:])) if part)
        items.append(replace(attack, text=text))
    return items


def train_document(lab: Lab) -> tuple[float, dict[str, Any]]:
    """Fit and write the head for sentences in data; return its threshold and report."""
    emails, attacks = pools.hidden(lab.data, test=False)
    calm_sentences = list(pools.data_sentences(lab.data))
    calm_sentences += [Item(part, False, "bipia email") for text in emails for part in windows(text, "document")]
    chance = random.Random(9)
    held = [chance.random() < 0.2 for _ in calm_sentences]
    train = [item for item, out in zip(calm_sentences, held, strict=True) if not out]
    train += [*pools.orders(lab.data), *attacks]
    head = lab.fit("injection-document", train)
    test_emails, test_attacks = pools.hidden(lab.data, test=True)
    calm = [Item(text, False, "bipia email") for text in test_emails]
    calm += grouped([item for item, out in zip(calm_sentences, held, strict=True) if out])
    quiet = lab.scores(head, calm, "document")
    threshold = threshold_at_fpr(quiet, np.zeros(len(quiet), dtype=bool), DOCUMENT_FPR)
    head.save(HERE / "document.npz")
    hidden = poisoned(test_emails, test_attacks)
    report = {
        "train_rows": len(train),
        "harmless_documents": by_source(calm, quiet, threshold),
        "hidden_in_email_unseen_categories": against_traffic(hidden, lab.scores(head, hidden, "document"), quiet, threshold),
    }
    return threshold, report


def grouped(items: list[Item], size: int = 5) -> list[Item]:
    """Join held-out sentences of one source into short documents."""
    groups: dict[str, list[str]] = defaultdict(list)
    for item in items:
        groups[item.source].append(item.text)
    return [Item("\n".join(texts[start : start + size]), False, source)
            for source, texts in groups.items() for start in range(0, len(texts), size)]  # fmt: skip


def main() -> None:
    """Train both heads and write weights, thresholds and metrics."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path(".cache/vectors.sqlite"))
    options = parser.parse_args()
    lab = Lab(options.data, options.cache)
    user, user_report = train_user(lab)
    print(json.dumps(user_report, indent=1), flush=True)
    document, document_report = train_document(lab)
    print(json.dumps(document_report, indent=1))
    thresholds = {"user": user, "document": document, "tool": document}
    settings = {"version": VERSION, "thresholds": {channel: round(value, 6) for channel, value in thresholds.items()}}
    (HERE / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    report = {"thresholds": settings["thresholds"], "user": user_report, "document": document_report}
    (HERE / "metrics.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
