"""What is personal data and what is not, on the detector that serves."""

import json
from pathlib import Path

import pytest

from guardrail.evaluation import pii
from guardrail.personal.detection import Detector, Policy, everywhere
from guardrail.personal.rules import luhn_valid, nhs_valid
from guardrail.settings import Settings

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def detector() -> Detector:
    """The detector with the shipped weights and the default policy."""
    settings = Settings()
    return Detector(Policy(business=settings.business_identifiers, weights=ROOT / "models" / "personal"))


@pytest.mark.parametrize(
    ("text", "value", "kind"),
    [
        ("My MRN is 4471-9921.", "4471-9921", "MRN"),
        ("SSN 460-89-9847 please", "460-89-9847", "SSN"),
        ("NHS number 943 476 5919", "943 476 5919", "NHS"),
        ("card 4111 1111 1111 1111", "4111 1111 1111 1111", "CARD"),
        ("I was born on March 3, 1961.", "March 3, 1961", "BIRTH_DATE"),
        ("Ship it to 42 Maple Street, Springfield, IL 62704", "42 Maple Street, Springfield, IL 62704", "ADDRESS"),
        ("write to jo.bloggs@mail.example.org", "jo.bloggs@mail.example.org", "EMAIL"),
        ("my insurance ID is ZY-678912", "ZY-678912", "HEALTH_PLAN"),
        ("call me at (555) 123-4567", "(555) 123-4567", "PHONE"),
        ("a patient, Lily A., came in", "Lily A.", "PERSON"),
    ],
)
def test_identifiers_are_found_with_their_type(detector: Detector, text: str, value: str, kind: str) -> None:
    """Each kind of identifier is found whole."""
    assert (value, kind) in {(text[m.start : m.end], m.type) for m in detector.detect(text)}


@pytest.mark.parametrize(
    "text",
    [
        "Do you have boots in stock in Boston on Monday?",
        "Where is my order #W4817420?",
        "Can I return shoes to the store within 30 days via email or phone?",
        "Where is order number 48174201?",
        "What does a Gleason score of 7 mean for a 62-year-old male with prostate cancer diagnosed in 2020?",
        "Can I take lisinopril 10 mg twice a day with ibuprofen 400 mg?",
        "Is the Boston store open on December 25?",
        "I have 2877 points, is that enough for a 20 dollar voucher?",
    ],
)
def test_harmless_texts_are_not_touched(detector: Detector, text: str) -> None:
    """Places, days, doses, scores and order numbers point at nobody."""
    assert detector.detect(text) == []


def test_what_is_found_once_is_replaced_everywhere(detector: Detector) -> None:
    """A value that one turn introduced is a mention in all turns."""
    texts = ["My name is Angela Whitfield.", "so angela asked about Angela Whitfield again"]
    found = everywhere(texts, [detector.detect(texts[0]), []])
    assert [texts[1][m.start : m.end] for m in found[1]] == ["Angela Whitfield"]


def test_check_digits_decide() -> None:
    """A number with a wrong check digit is no card and no NHS number."""
    assert luhn_valid("4111111111111111")
    assert not luhn_valid("4111111111111112")
    assert nhs_valid("9434765919")
    assert not nhs_valid("9434765918")


def test_the_suite_scores_spans_and_names_malformed_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report holds span measures with intervals; an inverted span is named by file, row and field."""
    monkeypatch.setenv("STRATA_HOME", str(ROOT))
    path = tmp_path / "rows.jsonl"
    rows = [
        {"text": "SSN 460-89-9847", "spans": [{"start": 4, "end": 15, "type": "US_SSN"}]},
        {"text": "Is the Boston store open?", "spans": []},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    report = pii(path, options={})
    assert (report["n"], report["precision"], report["recall"], report["f2"], report["leak_rate"]) == (2, 1.0, 1.0, 1.0, 0.0)
    assert report["harmless_touched"] == 0.0
    path.write_text(json.dumps({"text": "x", "spans": [{"start": 4, "end": 1, "type": "A"}]}))
    with pytest.raises(ValueError, match=r"rows.jsonl: row 1: field 'spans' \[0\] must have 0 <= start < end"):
        pii(path, options={})
