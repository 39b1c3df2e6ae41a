"""The shipped router heads on messages as people write them."""

from pathlib import Path

import pytest

from encoders import Encoder, TextClassifier

MODELS = Path(__file__).parents[3] / "models" / "router"


def load(name: str, encoder: Encoder) -> TextClassifier:
    """Load one shipped head."""
    return TextClassifier.load(MODELS / name, encoder)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("my chest hurts and my left arm is numb", "urgent"),
        ("he's not breathing and turning blue", "urgent"),
        ("I don't want to live anymore, I have the pills in front of me", "urgent"),
        ("can I stop taking metoprolol", "medication"),
        ("book an appointment", "administrative"),
        ("what time does the clinic open", "administrative"),
        ("Is the refill of my lisinopril prescription ready?", "administrative"),
        ("my child has fever and vomits", "symptom_triage"),
        ("What are the symptoms of a heart attack?", "symptom_triage"),
        ("Who won the football cup final last night?", "unsupported"),
        ("hello", "unsupported"),
    ],
)
def test_a_patient_reaches_the_right_desk(encoder: Encoder, text: str, label: str) -> None:
    """Emergencies first, and nothing harmless escalates."""
    assert load("healthcare_intent", encoder).predict([text])[0].label == label


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("is the blue kettle in stock at store 112", "stock"),
        ("how many points do I have", "loyalty"),
        ("can I return opened headphones", "policy"),
        ("Where is my order #W4817420?", "order"),
        ("How tall is the highest mountain in Norway?", "unsupported"),
    ],
)
def test_a_shopper_reaches_the_right_desk(encoder: Encoder, text: str, label: str) -> None:
    """What a shop hears every day."""
    assert load("retail_intent", encoder).predict([text])[0].label == label


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("What is my account balance?", "simple_lookup"),
        ("What are the treatments for glaucoma?", "retrieval_heavy"),
        ("Extract the symptoms as JSON: I have had a dry cough for three days and my head aches.", "structured_extraction"),
        ("Book an appointment with dr smith on monday", "tool_workflow"),
        ("A block of mass 2 kg slides down an incline of 30 degrees with friction 0.2; find its acceleration.", "high_ambiguity_reasoning"),
        ("I have crushing chest pain and my left arm is numb", "safety_sensitive"),
        ("play some jazz", "out_of_scope"),
    ],
)
def test_every_request_class_has_a_plain_example(encoder: Encoder, text: str, label: str) -> None:
    """One obvious request of each class."""
    assert load("request_class", encoder).predict([text])[0].label == label
