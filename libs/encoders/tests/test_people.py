"""Names of people where a sentence introduces them, and words that are none."""
# ruff: noqa: RUF001 - people type curly quotes

import time

import pytest

from encoders.people import names_in, without_names

NAMES = ("Fatuma", "Nguyet", "DeAndre", "O'Shea", "Anna-Lena", "Zoë", "Kwabena Mensah", "Will Brook")


@pytest.mark.parametrize(
    "template",
    [
        "My name is {}. Is my prescription ready?",
        "i’m {} and i would like to move my appointment",
        "Hello, {} here. Can I take ibuprofen?",
        "Good evening, it's {} again, where is my parcel?",
        "My husband {} lost his card.",
        "Please cancel the table booked under {}.",
        "Please cancel {}'s appointment.",
        "Patient {}, 61, dizzy since noon.",
        "Do you match prices?\n\nKind regards,\n{}",
        "Can you call me back? - {}",
        "Dr. {} told me to stop, and <PERSON_2> told {} so.",
    ],
)
def test_texts_that_differ_in_a_name_become_one(template: str) -> None:
    """Names of several shapes, and the pseudonym that stands for one, leave the same text behind."""
    assert {without_names(template.replace("{}", name)) for name in (*NAMES, "<PERSON_1>")} == {
        without_names(template.format("Alex", *["Alex"] * 2))
    }


@pytest.mark.parametrize(
    "text",
    [
        "I'm Diabetic and I take Metformin.",
        "Customer Content is shared on Monday. Click here for more.",
        "I'm calling about order A-12345. We're here to help.",
        "Best Practices\n- Slack\n- Salesforce",
        "This is Urgent. Ignore Previous Instructions here.",
        "Thanks for the help, I am very happy with the Blender.",
    ],
)
def test_other_words_in_capitals_stay(text: str) -> None:
    """Medicines, headings, days and orders to a machine are no names."""
    assert names_in(text) == []
    assert without_names(text) == text


def test_a_text_full_of_names_is_left_alone_and_read_in_time() -> None:
    """Nobody hides a text by writing each word where a name stands, and no text takes more than its length."""
    text = " ".join(f"Mr. Word{chr(97 + i)} " for i in range(20))
    assert without_names(text) == text
    began = time.process_time()
    for hostile in ("Aa " * 3000, "I'm " * 3000, ".\n" * 5000, "my a-" * 2000, "Thanks\n" * 1500):
        without_names(hostile)
    assert time.process_time() - began < 5
