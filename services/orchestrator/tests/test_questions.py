"""What a message asks, without the story around it."""

import pytest

from orchestrator.questions import question_of


@pytest.mark.parametrize(
    ("message", "question"),
    [
        ("My daughter vomits. What are the signs of dehydration in a child?", "What are the signs of dehydration in a child?"),
        ("Is it flu? Or a cold? I cough.", "Is it flu? Or a cold?"),
        ("Please tell me about fever.", "Please tell me about fever."),
        ("", ""),
    ],
)
def test_the_sentences_that_ask_are_the_question(message: str, question: str) -> None:
    """Sentences that ask are kept in order; a message that asks nothing is kept whole."""
    assert question_of(message) == question
