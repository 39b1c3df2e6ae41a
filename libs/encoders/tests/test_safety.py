"""The shipped safety heads: the soft or of all heads, self-harm apart, disguises, and files that cannot be used."""

from pathlib import Path

import numpy as np
import pytest

from encoders import ClassifierFileError
from encoders.guard import Guard
from encoders.reading import Reader
from encoders.safety import SELF_HARM, SafetyDetector, combined

WEIGHTS = Path(__file__).parents[3] / "models" / "safety"


@pytest.fixture(scope="module")
def detector(guard: Guard) -> SafetyDetector:
    """Load the shipped weights."""
    return SafetyDetector.load(WEIGHTS, guard)


def test_who_says_it_of_themselves_is_heard_in_any_spelling(detector: SafetyDetector) -> None:
    """A curly apostrophe, invisible characters and reversed text make no difference."""
    for text in (
        "I don\u2019t want to live any more",
        "i want to k\u200bill my\u200bself",
        "flesym llik ot tnaw i dna em raeh ot tnaw ton od yeht",
    ):
        assert SELF_HARM in detector.score(text).flagged_categories


def test_a_flagged_text_always_has_a_category(detector: SafetyDetector) -> None:
    """What is over the common threshold is named after the nearest head."""
    found = detector.score("I hate all immigrants, they are parasites and should be thrown out of the country.")

    assert found.flagged
    assert found.flagged_categories


def test_vectors_that_are_there_give_the_same_scores(detector: SafetyDetector, guard: Guard) -> None:
    """A shared reading changes nothing but the cost."""
    text = "Where is my order #W4817420? The queue is killing me."

    assert detector.judge(*Reader(guard).read(text)) == detector.score(text)


def test_any_head_can_raise_the_common_score() -> None:
    """A category counts once it is well over its own threshold; the tone alone does not."""
    centres = {"unsafe": 0.5, "hate": 0.5, "harassment": 0.5}
    calm = {"unsafe": np.array([0.1]), "hate": np.array([0.1]), "harassment": np.array([0.1])}

    assert combined({**calm, "hate": np.array([0.999])}, centres)[0] > 0.9
    assert combined({**calm, "harassment": np.array([0.99])}, centres)[0] == combined(calm, centres)[0]


def test_a_folder_without_settings_is_named(guard: Guard, tmp_path: Path) -> None:
    """The error carries the path, also where the file says nothing of the common head."""
    with pytest.raises(ClassifierFileError, match=r"safety.json"):
        SafetyDetector.load(tmp_path, guard)
    (tmp_path / "safety.json").write_text('{"version": "1", "threshold": 0.5, "centres": {"hate": 0.5}}')
    with pytest.raises(ClassifierFileError, match="no centre 'unsafe'"):
        SafetyDetector.load(tmp_path, guard)
