"""The suite `routing` of `strata eval`, over the very classifiers that serve."""

from pathlib import Path

from chassis.settings import load as load_settings
from encoders import Encoder, Prediction, TextClassifier
from encoders.evaluation import REQUEST_CLASS_ROWS, TAXONOMY_ROWS, RowError, evaluate_routing, read_rows
from encoders.people import without_names
from router.domains import load_head
from router.settings import Settings

_HARD = ("high_ambiguity_reasoning", "safety_sensitive")
_HALF = ("retrieval_heavy", "structured_extraction", "tool_workflow")


def routing(data: Path, *, options: dict[str, str]) -> dict[str, object]:
    """Score request classes, or with option `taxonomy` the labels of that file; raise ValueError for malformed data."""
    encoder = Encoder.load()
    if taxonomy := options.get("taxonomy"):
        own = TextClassifier.load(Path(taxonomy), encoder)
        rows = read_rows(data, TAXONOMY_ROWS)
        _known(data, [row["label"] for row in rows], own)
        versions = {"encoder": encoder.identity.key(), "taxonomy": own.config.name}
        return evaluate_routing(rows, lambda text: own.predict([text])[0], versions, field_name="label")
    settings = load_settings(Settings)
    head = load_head(settings.repository_dir, settings.request_class_model, encoder)
    versions = {"encoder": encoder.identity.key(), "request_class": head.version}
    longest = settings.max_characters

    def classify(text: str) -> Prediction:
        return head.classifier.predict([without_names(text[:longest])])[0]

    return evaluate_routing(read_rows(data, REQUEST_CLASS_ROWS), classify, versions, difficulty=difficulty)


def difficulty(prediction: Prediction) -> float:
    """Return how much of a large model a request is expected to need, between 0 and 1."""
    shares = prediction.probabilities
    return sum(shares.get(name, 0.0) for name in _HARD) + 0.5 * sum(shares.get(name, 0.0) for name in _HALF)


def _known(data: Path, labels: list[str], classifier: TextClassifier) -> None:
    known = {*classifier.config.labels, classifier.config.oos_label, "oos"}
    for number, label in enumerate(labels, 1):
        if label not in known:
            raise RowError(f"{data}: row {number}: field 'label' {label!r} is not in the taxonomy")
