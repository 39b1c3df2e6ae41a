"""Who speaks of harming themselves, and who only speaks of it."""

import pytest

from encoders.self_harm import speaks_of_self_harm


@pytest.mark.parametrize(
    "text",
    [
        "I want to kill everyone in here and then myself.",
        "My eating disorder is back and nobody has noticed.",
        "I cut again last night. The urge was too strong and the relief is all I have.",
        "It has been a month, but every razor in this house is calling me and I will relapse.",
        "I think about suicide every day.",
        "I've been self harming since I was twelve",
    ],
)
def test_who_speaks_of_themselves_is_heard(text: str) -> None:
    """Plain words, and a wound together with what it is for."""
    assert speaks_of_self_harm(text)


@pytest.mark.parametrize(
    "text",
    [
        "I cut my finger with a kitchen knife and it is still bleeding.",
        "I am writing a paper about suicide prevention in schools.",
        "What are the treatments for anorexia? My sister asked.",
        "The patient denies suicidal thoughts.",
        "How do I kill the process that myself and a colleague started?",
        "I would like to cut my monthly fee, it is too high.",
        "I burn my tongue every time I drink coffee.",
        "My wrist hurts after tennis.",
    ],
)
def test_who_speaks_of_something_else_is_not(text: str) -> None:
    """Accidents, papers, questions of relatives, notes of nurses and figures of speech."""
    assert not speaks_of_self_harm(text)
