"""Fits the three router heads on the labelled files beside this script and writes weights and metrics.

Usage: python models/router/train.py [--head NAME] [--cache FILE]
"""

import argparse
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from encoders import Encoder, TextClassifier
from encoders.classifier import WEIGHTS_FILE
from encoders.encoder import Vectors
from encoders.fitting import Recipe, best_temperature, fit, reconfigure
from encoders.metrics import bootstrap_interval, calibration_error, macro_f1
from encoders.vector_cache import VectorCache

HERE = Path(__file__).parent
RECIPE = Recipe(strength=10.0, vector_scale=4.0, ngram_scale=2.0, iterations=100)
# Each group is left out of one fit together, then measured source by source.
UNSEEN = {
    "request_class": [["hwu64", "pubmedqa", "defog", "mt_bench", "nursesim", "nursesim_soon", "clinicaflow"]],
    "healthcare_intent": [["nursesim", "nursesim_soon", "avey"], ["clinicaflow", "hwu64"]],
    "retail_intent": [["clinc150"]],
}
URGENT_RECALL = 0.97
SELF_CARE_LIMIT = 1 / 3
TRAFFIC_LIMIT = 0.02
_TWIN = 0.95


class Head:
    """The data of one head, embedded."""

    def __init__(self, name: str, encoder: Encoder, cache: VectorCache) -> None:
        """Read and embed train and test rows; drop test rows that nearly equal a train row."""
        self.name = name
        self.encoder = encoder
        self.train = read(HERE / name / "train.jsonl.gz")
        self.vectors = cache.encode([row["text"] for row in self.train])
        rows = read(HERE / name / "test.jsonl.gz")
        vectors = cache.encode([row["text"] for row in rows])
        fresh = [float((self.vectors @ vector).max()) < _TWIN for vector in vectors]
        self.test = [row for row, keep in zip(rows, fresh, strict=True) if keep]
        self.test_vectors = vectors[np.array(fresh)]
        self.twins = len(rows) - len(self.test)
        self.desk = [row for row in read(HERE / "seeds_test.jsonl") if name.startswith(row["domain"])]
        self.desk_vectors = cache.encode([row["text"] for row in self.desk])

    def fit(self, keep: NDArray[np.bool_]) -> TextClassifier:
        """Fit on the train rows where `keep` is true."""
        rows = [row for row, kept in zip(self.train, keep, strict=True) if kept]
        texts, labels = [row["text"] for row in rows], [row["label"] for row in rows]
        return fit(self.encoder, self.name, texts, labels, RECIPE, vectors=self.vectors[keep])

    def without(self, sources: list[str]) -> tuple[TextClassifier, list[dict[str, Any]], Vectors]:
        """Fit without `sources`; return the classifier, and the left-out rows with their vectors."""
        out = np.array([row["source"] in sources for row in self.train])
        rows = [row for row, left in zip(self.train, out, strict=True) if left]
        return self.fit(~out), rows, self.vectors[out]


def read(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSON lines file, packed or not."""
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    return [json.loads(line) for line in text.splitlines()]


def measure(classifier: TextClassifier, rows: list[dict[str, Any]], vectors: Vectors) -> dict[str, Any]:
    """Return accuracy with its interval, macro F1, calibration error and recall per label."""
    predictions = classifier.predict([row["text"] for row in rows], vectors)
    found, gold = [p.label for p in predictions], [row["label"] for row in rows]
    right = np.array([a == b for a, b in zip(found, gold, strict=True)])
    interval = bootstrap_interval(lambda index: float(right[index].mean()), len(rows))
    confidence = np.array([p.confidence for p in predictions])
    recalls = {label: rounded(right[np.array(gold) == label].mean()) for label in sorted(set(gold))}
    return {
        "n": len(rows),
        "accuracy": rounded(right.mean()),
        "accuracy_interval": [rounded(value) for value in interval or ()],
        "macro_f1": rounded(macro_f1(found, gold)),
        "ece": rounded(calibration_error(confidence, right)),
        "recall": recalls,
    }


def rounded(value: float | np.floating[Any]) -> float:
    """Return four decimals."""
    return round(float(value), 4)


def baselines(head: Head) -> dict[str, float]:
    """Return accuracy of the majority class, of text length alone, and of TF-IDF."""
    texts, labels = [row["text"] for row in head.train], [row["label"] for row in head.train]
    unseen, gold = [row["text"] for row in head.test], np.array([row["label"] for row in head.test])
    majority = max(set(labels), key=labels.count)
    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2)
    tfidf = make_pipeline(words, LogisticRegression(C=10, max_iter=200)).fit(texts, labels)
    length = LogisticRegression(max_iter=500).fit([[np.log1p(len(text))] for text in texts], labels)
    desk = np.array([row["label"] for row in head.desk])
    found = tfidf.predict([row["text"] for row in head.desk]) if head.desk else desk
    extra = {"tfidf_hand_written": rounded((found == desk).mean())} if head.desk else {}
    return extra | {
        "majority": rounded((gold == majority).mean()),
        "length": rounded((length.predict([[np.log1p(len(text))] for text in unseen]) == gold).mean()),
        "tfidf": rounded((tfidf.predict(unseen) == gold).mean()),
    }


def urgent_floor(
    left_out: dict[str, tuple[NDArray[np.float64], list[dict[str, Any]]]], ordinary: NDArray[np.float64]
) -> tuple[float, dict[str, Any]]:
    """Choose the floor of `urgent` on sources unseen in training; return it and what it does to each.

    The highest floor that reaches the recall is taken, unless too many self-care complaints or too much ordinary
    traffic (`ordinary`, its probabilities of `urgent`) would escalate.
    """
    shares = np.concatenate([scores for scores, _ in left_out.values()])
    rows = [row for _, part in left_out.values() for row in part]
    urgent = np.array([row["label"] == "urgent" for row in rows])
    self_care = np.array([row["label"] == "symptom_triage" and row["source"] != "nursesim_soon" for row in rows])
    by_recall = float(np.quantile(shares[urgent], 1 - URGENT_RECALL, method="lower"))
    by_calm = float(np.quantile(shares[self_care], 1 - SELF_CARE_LIMIT, method="higher"))
    by_traffic = float(np.quantile(ordinary, 1 - TRAFFIC_LIMIT, method="higher"))
    floor = round(max(by_recall, by_calm, by_traffic), 4)
    report: dict[str, Any] = {"ordinary_traffic_escalated": [rounded((ordinary >= floor).mean()), len(ordinary)]}
    for name, (scores, part) in left_out.items():
        kinds: dict[str, list[bool]] = {"urgent": [], "self_care": [], "soon": []}
        for score, row in zip(scores, part, strict=True):
            kind = "urgent" if row["label"] == "urgent" else "soon" if row["source"] == "nursesim_soon" else "self_care"
            kinds[kind].append(bool(score >= floor))
        report[name] = {f"{kind}_escalated": [rounded(np.mean(hits)), len(hits)] for kind, hits in kinds.items() if hits}
    return floor, report


def train(head: Head) -> None:
    """Fit, calibrate, measure and write one head."""
    chance = np.random.default_rng(11)
    held = chance.random(len(head.train)) < 0.1
    rows = [row for row, kept in zip(head.train, held, strict=True) if kept]
    partial = head.fit(~held)
    targets = np.array([partial.config.labels.index(row["label"]) for row in rows])
    temperature = best_temperature(partial.probabilities([row["text"] for row in rows], head.vectors[held]), targets)
    metrics: dict[str, Any] = {"train_rows": len(head.train), "test_near_duplicates_dropped": head.twins, "unseen_source": {}}
    left_out = {}
    for sources in UNSEEN[head.name]:
        classifier, rows, vectors = head.without(sources)
        classifier = reconfigure(classifier, temperature=temperature)
        origins = np.array([row["source"].removesuffix("_soon") for row in rows])
        for source in sorted(set(origins)):
            part = [row for row, origin in zip(rows, origins, strict=True) if origin == source]
            chosen = vectors[origins == source]
            metrics["unseen_source"][source] = measure(classifier, part, chosen)
            if source in {"nursesim", "clinicaflow"} and head.name == "healthcare_intent":
                column = classifier.config.labels.index("urgent")
                shares = classifier.probabilities([row["text"] for row in part], chosen)[:, column]
                left_out[source] = (shares.astype(np.float64), part)
    final = reconfigure(head.fit(np.ones(len(head.train), dtype=bool)), temperature=temperature)
    if left_out:
        calm = np.array([row["label"] not in {"urgent", "symptom_triage"} for row in head.test])
        texts = [row["text"] for row in head.test]
        shares = final.probabilities(texts, head.test_vectors)[calm, final.config.labels.index("urgent")]
        floor, metrics["urgent"] = urgent_floor(left_out, shares.astype(np.float64))
        final = reconfigure(final, floors={"urgent": floor})
    final.save(HERE / head.name / WEIGHTS_FILE)
    final = TextClassifier.load(HERE / head.name, head.encoder)
    metrics["test"] = measure(final, head.test, head.test_vectors)
    metrics["test_baselines_accuracy"] = baselines(head)
    if head.desk:
        metrics["hand_written_test"] = measure(final, head.desk, head.desk_vectors)
    metrics["config"] = {"temperature": rounded(temperature), "floors": dict(final.config.floors), "encoder": final.config.encoder}
    (HERE / head.name / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    summary = {key: metrics[key] for key in ("test", "test_baselines_accuracy", "urgent", "hand_written_test") if key in metrics}
    print(head.name, json.dumps(summary))


def main() -> None:
    """Train the heads asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--head", choices=sorted(UNSEEN), action="append")
    parser.add_argument("--cache", type=Path, default=Path(".cache/vectors.sqlite"))
    options = parser.parse_args()
    encoder = Encoder.load()
    for name in options.head or sorted(UNSEEN):
        train(Head(name, encoder, VectorCache(encoder, options.cache)))


if __name__ == "__main__":
    main()
