"""The classifier, fitted on a handful of sentences."""

import itertools
import math
import re
import time
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from encoders import ClassifierFileError, Encoder, TextClassifier
from encoders.features import NgramHasher
from encoders.fitting import Recipe, calibrated, fit, reconfigure

SENTENCES = {
    "book": ["book an appointment", "i need to see a doctor on monday", "schedule a visit", "can i get a slot"],
    "pay": ["how do i pay my bill", "what does the visit cost", "send me the invoice", "is my copay due"],
    "drug": ["refill my metformin", "can i stop taking aspirin", "what dose of ibuprofen", "my pills ran out"],
}


@pytest.fixture(scope="module")
def classifier(encoder: Encoder) -> TextClassifier:
    """Fit three classes."""
    pairs = [(text, label) for label, texts in SENTENCES.items() for text in texts]
    return fit(encoder, "desk", [text for text, _ in pairs], [label for _, label in pairs], Recipe())


def test_unseen_sentences_get_the_right_label(classifier: TextClassifier) -> None:
    """Meaning carries over to words that training never saw."""
    found = classifier.predict(["make me a booking with dr smith", "the price of a consultation"])

    assert [prediction.label for prediction in found] == ["book", "pay"]
    assert all(abs(sum(prediction.probabilities.values()) - 1) < 1e-5 for prediction in found)
    assert found[0].confidence == found[0].probabilities["book"]


def test_a_saved_classifier_answers_the_same(classifier: TextClassifier, encoder: Encoder, tmp_path: Path) -> None:
    """float16 on disk moves no probability by more than half a percent."""
    texts = ["refill please", "invoice", "hello there"]
    classifier.save(tmp_path / "classifier.npz")
    loaded = TextClassifier.load(tmp_path, encoder)

    assert loaded.config == classifier.config
    assert np.allclose(loaded.probabilities(texts), classifier.probabilities(texts), atol=5e-3)


def test_a_floor_lets_a_safety_class_win_before_it_leads(classifier: TextClassifier) -> None:
    """With a floor of zero the class always wins."""
    cautious = reconfigure(classifier, floors={"drug": 0.0})

    assert cautious.predict(["book an appointment"])[0].label == "drug"


def test_an_unsure_text_is_out_of_scope(classifier: TextClassifier) -> None:
    """Below the threshold the answer is the out-of-scope label."""
    strict = reconfigure(classifier, oos_label="oos", oos_threshold=0.99)

    prediction = strict.predict(["the moon is made of cheese"])[0]
    assert prediction.label == "oos"
    assert prediction.confidence > 0.01


def test_calibration_lowers_the_confidence_of_wrong_answers(classifier: TextClassifier) -> None:
    """Held-out labels that contradict the classifier raise its temperature."""
    texts = ["book an appointment", "refill my metformin", "how do i pay my bill", "schedule a visit"]
    softer = calibrated(classifier, texts, ["pay", "book", "drug", "book"])

    assert softer.config.temperature > 1
    assert softer.probabilities(texts).max() < classifier.probabilities(texts).max()


def test_a_file_that_is_no_classifier_is_named(encoder: Encoder, tmp_path: Path) -> None:
    """The error carries the path."""
    path = tmp_path / "weights.npz"
    path.write_bytes(b"nonsense")

    with pytest.raises(ClassifierFileError, match=r"weights.npz"):
        TextClassifier.load(path, encoder)


def test_weights_for_another_encoder_are_refused(classifier: TextClassifier, encoder: Encoder, tmp_path: Path) -> None:
    """A head never runs on vectors that it was not trained on."""
    path = tmp_path / "weights.npz"
    reconfigure(classifier, encoder="minilm-0000000000").save(path)

    with pytest.raises(ClassifierFileError, match="needs encoder 'minilm-0000000000'"):
        TextClassifier.load(path, encoder)


def test_classification_costs_little_beside_encoding(classifier: TextClassifier, encoder: Encoder) -> None:
    """The median of a short text stays under three milliseconds of the processor's time."""
    text = "can you tell me whether the blue kettle is in stock at store 112 today"
    vectors = encoder.encode([text])
    taken = []
    for _ in range(30):
        started = time.thread_time()
        classifier.predict([text], vectors)
        taken.append(time.thread_time() - started)

    assert sorted(taken)[15] < 0.003


@pytest.mark.parametrize("text", ["", "a", "My order 4471 is late, is it?", "Grüße an Frau Müller, 日本語", "a b " * 900])
def test_ngrams_are_counted_by_their_checksums(text: str) -> None:
    """Whether a text is ASCII or not, each n-gram of words and characters counts where its CRC-32 says, damped and scaled."""
    hasher = NgramHasher()
    folded = re.sub(r"\d", "0", text[: hasher.longest].lower())
    tokens = re.findall(r"\w+|[^\w\s]", folded)
    padded = f" {' '.join(tokens)} "
    grams = [f"w1:{token}" for token in tokens] + [f"w2:{' '.join(pair)}" for pair in itertools.pairwise(tokens)]
    grams += [padded[start : start + size] for size in (3, 4, 5) for start in range(len(padded) - size + 1)]
    counts = Counter(zlib.crc32(gram.encode()) % hasher.buckets for gram in grams)
    expected = {bucket: 1 + math.log(count) for bucket, count in counts.items()}
    length = math.sqrt(sum(value * value for value in expected.values())) or 1.0

    rows = hasher.rows(["before", text, "after"]).take([1])

    found = dict(zip(rows.indices.tolist(), rows.values.tolist(), strict=True))
    assert found == pytest.approx({bucket: value / length for bucket, value in expected.items()})
