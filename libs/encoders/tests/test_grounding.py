"""The support score, as shipped, on what a small model gets wrong."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from encoders import Encoder
from encoders.alignment import Aligner
from encoders.claims import Reading, denies, longest_copy, without_citations
from encoders.entailment import EntailmentModel
from encoders.grounding import Cascade, SupportFileError, SupportScorer

WEIGHTS = Path(__file__).parents[3] / "models" / "grounding"
PASSAGES = [
    "Bring your insurance card. The clinic opens at 8 am and closes at 6 pm on weekdays.",
    (
        "Adults may take 400 mg of ibuprofen every six hours. Do not take more than 1,200 mg in one day. "
        "Ibuprofen should not be used in the last 3 months of pregnancy."
    ),
]


@pytest.fixture(scope="module")
def scorer(encoder: Encoder) -> SupportScorer:
    """Load the shipped weights."""
    return SupportScorer.load(WEIGHTS, encoder)


@pytest.mark.parametrize(
    "claim",
    [
        "Adults may take 400 mg of ibuprofen every six hours [2].",
        "Do not take more than 1200 mg in one day.",
        "The clinic opens at 8 am on weekdays [1].",
        "Adults may take 400 mg of ibuprofen every 6 hours.",
    ],
)
def test_a_near_copy_is_supported(scorer: SupportScorer, claim: str) -> None:
    """Citation marks, thousands marks and spelled numbers do not matter."""
    found = scorer.score(claim, PASSAGES)

    assert found.supported, found
    assert found.best_passage == (0 if "clinic" in claim else 1)


@pytest.mark.parametrize(
    ("claim", "reason"),
    [
        ("Adults may take 800 mg of ibuprofen every six hours.", "the quantity 800 mg is in no passage"),
        ("Adults may take 400 ml of ibuprofen every six hours.", "the quantity 400 ml is in no passage"),
        ("The clinic opens at 7 am on weekdays.", "the time 7 am is in no passage"),
        ("Ibuprofen should be used in the last 3 months of pregnancy.", "negated"),
        ("The warranty covers accidental damage for kettles.", "most words of the claim are in no passage"),
    ],
)
def test_what_the_passages_do_not_say_is_flagged(scorer: SupportScorer, claim: str, reason: str) -> None:
    """A wrong figure, unit, negation or topic is unsupported, and the reason says why."""
    found = scorer.score(claim, PASSAGES)

    assert not found.supported, found
    assert any(reason in objection for objection in found.reasons), found.reasons


@pytest.mark.parametrize(
    ("claim", "passage"),
    [
        ("Patients should bring their insurance card.", PASSAGES[0]),
        ("Gin tastes mainly of juniper.", "Gin is a spirit which derives its predominant flavour from juniper berries."),
    ],
)
def test_a_paraphrase_gains_from_being_read(scorer: SupportScorer, claim: str, passage: str) -> None:
    """The entailment model supports what shares few words; a claim beyond those that it may read is left to the words."""
    words = scorer.score_all([(claim, [passage])], most_read=0)[0]
    read = scorer.score(claim, [passage])

    assert read.supported
    assert read.probability > words.probability + 0.1


@pytest.mark.parametrize(
    ("claim", "passage", "denied"),
    [
        (
            "Adults can take one tablet every six hours.",
            "Adults may take one tablet every 6 hours, but no more than 4 tablets in 24 hours.",
            False,
        ),
        ("The drug works in adults.", "The drug works in adults but not in children.", False),
        ("The drug works in children.", "The drug works in adults but not in children.", True),
        ("The drug helps in adults.", "The drug does not help in adults.", True),
        ("Do not take more than 8 tablets.", "Take no more than 8 tablets.", False),
        ("It is no longer allowed to return them.", "It is allowed to return them.", True),
        ("Refunds are possible.", "Refunds are no longer possible.", True),
    ],
)
def test_a_negation_counts_where_it_denies_what_is_said(claim: str, passage: str, *, denied: bool) -> None:
    """What a passage denies beside the claim, and bounds of figures, contradict nothing."""
    assert denies(Reading(passage), Reading(claim)) == denied


def test_the_best_sentence_is_the_evidence(scorer: SupportScorer) -> None:
    """The sentence nearest to the claim is named."""
    found = scorer.score("Do not take more than 1,200 mg in one day.", PASSAGES)

    assert found.best_sentence == "Do not take more than 1,200 mg in one day."


def test_without_passages_nothing_is_supported(scorer: SupportScorer) -> None:
    """An empty context supports no claim."""
    assert not scorer.score("The clinic opens at 8 am.", []).supported


def test_weights_that_cannot_be_read_are_named(encoder: Encoder, tmp_path: Path) -> None:
    """The error carries the path."""
    with pytest.raises(SupportFileError, match=r"support.json"):
        SupportScorer.load(tmp_path, encoder)


def test_reading_finds_numbers_measures_and_names() -> None:
    """Words and digits are the same number, and units have one name each."""
    reading = Reading("Take two tablets, or 1,200.50 milligrams, as Dr. Smith told Alice.")

    assert reading.numbers == {"2", "1200.5"}
    assert reading.measures == {("2", "tablets"), ("1200.5", "mg")}
    assert "alice" in reading.names
    assert without_citations("So it is [1]. And [2, 3].") == "So it is. And."


def test_longest_copy_measures_a_run() -> None:
    """Three of four tokens in a row."""
    assert longest_copy(["a", "b", "c", "x"], ["z", "a", "b", "c"]) == 0.75


def test_what_the_model_has_read_does_not_depend_on_the_threshold_of_the_words(encoder: Encoder) -> None:
    """`moved` shifts what the words decide alone, and nothing that the model weighs with them."""
    aligner = Aligner.load()
    cascade = Cascade.read(json.loads((WEIGHTS / "support.json").read_text()))
    model = EntailmentModel.load(WEIGHTS, aligner.tokens)
    one, two = (SupportScorer(encoder, aligner, replace(cascade, moved=moved), model, "") for moved in (0.0, 1.0))
    pairs = [("Gin tastes mainly of juniper.", ["Gin is a spirit which derives its predominant flavour from juniper berries."])]

    assert one.score_all(pairs) == two.score_all(pairs)
    assert one.score_all(pairs, most_read=0)[0].probability < two.score_all(pairs, most_read=0)[0].probability
