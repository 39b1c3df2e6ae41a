"""Claims whose every word has a source, and which still say more."""

import pytest

from encoders.claims import Reading
from encoders.overreach import blended, extrapolated


@pytest.mark.parametrize(
    ("claim", "evidence"),
    [
        ("All patients recover within a week.", "Some patients recover within a week."),
        ("Zinc always shortens colds in adults.", "Zinc sometimes shortens colds in adults."),
        ("Coffee causes heart disease in men.", "Coffee is associated with heart disease in men."),
        ("The study proves that zinc shortens colds.", "The study suggests that zinc shortens colds."),
        ("Ibuprofen causes stomach pain.", "Ibuprofen may cause stomach pain."),
        ("Refunds take exactly 5 days.", "Refunds take about 5 days."),
        ("The drug will reduce fever.", "The drug might reduce fever."),
    ],
)
def test_more_strength_or_certainty_than_the_passage_is_extrapolated(claim: str, evidence: str) -> None:
    """A quantifier, a modality or a cause that the passage does not state is named with its rung."""
    found = extrapolated(Reading(claim), Reading(evidence))

    assert found is not None
    assert found.kind == "extrapolated"


@pytest.mark.parametrize(
    ("claim", "evidence"),
    [
        ("Some patients recover within a week.", "All patients recover within a week."),
        ("Ibuprofen may cause stomach pain.", "Ibuprofen may cause stomach pain in adults."),
        ("All patients recover within a week.", "All patients usually recover within a week."),
        ("Shoes can be returned within 30 days.", "You can return shoes within 30 days."),
        ("The shop closes at noon.", "All patients may recover within a week."),
    ],
)
def test_as_much_or_less_than_the_passage_is_not(claim: str, evidence: str) -> None:
    """A weaker claim, a copy, and a claim about something else say no more."""
    assert extrapolated(Reading(claim), Reading(evidence)) is None


IBUPROFEN = Reading("Ibuprofen relieves pain and fever. Adults may take 400 mg of ibuprofen every six hours.")
AMOXICILLIN = Reading("Amoxicillin treats ear infections. Adults may take 500 mg of amoxicillin every eight hours.")


@pytest.mark.parametrize(
    "claim",
    [
        "Adults may take 500 mg of ibuprofen every six hours.",
        "Ibuprofen relieves pain and fever and treats ear infections.",
        "Ibuprofen relieves pain and fever, and it treats ear infections.",
    ],
)
def test_what_two_documents_say_of_different_things_is_blended(claim: str) -> None:
    """A dose of the other drug and a half of the other document give the claim away."""
    found = blended(Reading(claim), [IBUPROFEN, AMOXICILLIN], ["a", "b"])

    assert found is not None
    assert found.kind == "blended"


@pytest.mark.parametrize(
    ("claim", "belongs"),
    [
        ("Ibuprofen relieves pain and fever and treats ear infections.", ["a", "a"]),
        ("Ibuprofen relieves pain and fever, and amoxicillin treats ear infections.", ["a", "b"]),
        ("Adults may take 400 mg of ibuprofen every six hours.", ["a", "b"]),
        ("Adults may take 500 mg of amoxicillin every eight hours.", ["a", "b"]),
    ],
)
def test_what_belongs_together_is_not(claim: str, belongs: list[str]) -> None:
    """Passages of one document belong together, and so does a sentence that names each subject."""
    assert blended(Reading(claim), [IBUPROFEN, AMOXICILLIN], belongs) is None
