"""What is personal data and what is not, on the detector that serves."""

import json
import re
from pathlib import Path

import pytest

from guardrail.evaluation import pii
from guardrail.personal.detection import Detector, Policy, everywhere
from guardrail.personal.rules import dea_valid, luhn_valid, nhs_valid, npi_valid, ssn_valid
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
        ("it is 123 45 6789 as on the form", "123 45 6789", "SSN"),
        ("Medicare ID 1EG4-TE5-MK72", "1EG4-TE5-MK72", "HEALTH_PLAN"),
        ("jo.bloggs (at) mail (dot) example", "jo.bloggs (at) mail (dot) example", "EMAIL"),
        ("for the sick note: AB123456C", "AB123456C", "SSN"),
        ("send it to LS6 2AB", "LS6 2AB", "ADDRESS"),
        ("ring me on 07700 900123", "07700 900123", "PHONE"),
        ("mon numéro est le 06 12 34 56 78", "06 12 34 56 78", "PHONE"),
        ("am besten 0171/2345678", "0171/2345678", "PHONE"),
        ("mi DNI es 12345678Z", "12345678Z", "SSN"),
        ("mon numéro 1 84 12 76 451 089 46", "1 84 12 76 451 089 46", "SSN"),
        ("versichert unter A123456780", "A123456780", "HEALTH_PLAN"),
        ("14 rue de la République, 69002 Lyon", "14 rue de la République, 69002 Lyon", "ADDRESS"),
        ("Hauptstr. 5, 80331 München", "Hauptstr. 5, 80331 München", "ADDRESS"),
        ("né le 5 mars 1972", "5 mars 1972", "BIRTH_DATE"),
        ("ich heiße Jürgen Müller", "Jürgen Müller", "PERSON"),
    ],
)
def test_identifiers_are_found_with_their_type(detector: Detector, text: str, value: str, kind: str) -> None:
    """Each kind of identifier is found whole."""
    assert (value, kind) in {(text[m.start : m.end], m.type) for m in detector.detect(text)}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("write to jo\u200bhn@exa\u2060mple.com please", "jo\u200bhn@exa\u2060mple.com"),
        ("SSN 460\u201189\u20119847", "460\u201189\u20119847"),
        ("call\u00a0me at (555)\u00a0123\u00a04567", "(555)\u00a0123\u00a04567"),
        ("\U0001f600\u200d\U0001f600 my MRN is \uff14\uff14\uff17\uff11-9921", "\uff14\uff14\uff17\uff11-9921"),
    ],
)
def test_a_value_is_found_as_it_looks(detector: Detector, text: str, value: str) -> None:
    """Invisible characters, odd blanks and hyphens hide nothing, and the place is that of the text as it came."""
    assert [text[m.start : m.end] for m in detector.detect(text)] == [value]


@pytest.mark.parametrize("text", ["My nan is 94 and fell", "he turned 91 last week", "my father, aged 93, lives alone", "I'm 101."])
def test_ages_over_89_have_their_own_type(detector: Detector, text: str) -> None:
    """However the age is said; below 90 and of things it is none."""
    assert [m.type for m in detector.report(text) if m.type == "OLD_AGE"]
    younger = re.sub(r"\d+", "59", text)
    assert not [m.type for m in detector.report(younger) if m.type == "OLD_AGE"]
    assert not [m.type for m in detector.report(re.sub(r"\d+", "95%", text)) if m.type == "OLD_AGE"]


def test_an_address_ends_with_its_sentence(detector: Detector) -> None:
    """What follows the address reaches the model."""
    text = "She lives at 12 Acacia Avenue, Leeds. The wound looks infected."

    assert [text[m.start : m.end] for m in detector.detect(text)] == ["12 Acacia Avenue, Leeds"]


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
        "Do you sell Dr Pepper on Sunday?",
        "I need version 2.10.4.1 of the driver",
        "Is the Galaxy S10 2GB dearer than the S8 4GB?",
        "Is NDC 0002-7510-01 the inhaler of lot 0123 45678?",
        "Product code AB123456C is out of stock",
        "Guten Tag, bitte sagen Sie mir die Öffnungszeiten",
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


@pytest.mark.parametrize(
    ("text", "value", "kind"),
    [
        ("Where is order #W4817420?", "#W4817420", "ORDER"),
        ("My member number is M-100231.", "M-100231", "LOYALTY"),
        ("We moved to Uruguay in 1998", "Uruguay", "LOCATION"),
        ("My brother turned 60", "60", "AGE"),
        ("her neighbours are Cambodian", "Cambodian", "NATIONALITY"),
        ("I write on https://jo-bloggs.example.org/diary", "https://jo-bloggs.example.org/diary", "URL"),
    ],
)
def test_what_points_at_nobody_alone_is_reported_and_stays_in_the_prompt(detector: Detector, text: str, value: str, kind: str) -> None:
    """Callers and records learn of it; tools and retrieval still get it."""
    reading = detector.read(text)
    assert (value, kind) in {(text[m.start : m.end], m.type) for m in reading.reported}
    assert reading.replaced == []


@pytest.mark.parametrize(
    "text",
    [
        "What does a Gleason score of 7 mean for a 62-year-old Hispanic male with prostate cancer diagnosed in 2020?",
        "Guidelines for asthma in a 35-year-old patient from King County, seen last summer",
    ],
)
def test_a_question_about_a_kind_of_patient_reports_nobody(detector: Detector, text: str) -> None:
    """Age, origin and year of a case are no personal data while nobody is named."""
    assert detector.report(text) == []


@pytest.mark.parametrize(
    ("text", "kind"), [("NPI 1234567893", "NPI"), ("NPI 1234567890", ""), ("DEA AB1234563", "DEA"), ("DEA AB1234564", "")]
)
def test_numbers_of_practitioners_need_their_check_digit(detector: Detector, text: str, kind: str) -> None:
    """A right check digit makes an NPI or a DEA number, a wrong one does not."""
    assert kind in {"", *(m.type for m in detector.detect(text))}
    assert bool(kind) == any(m.type in {"NPI", "DEA"} for m in detector.detect(text))


def test_check_digits_decide() -> None:
    """A number with a wrong check digit is no card, NHS, NPI or DEA number, and one out of range no social security number."""
    assert npi_valid("1234567893")
    assert not npi_valid("1234567890")
    assert not npi_valid("3234567893")
    assert dea_valid("AB1234563")
    assert not dea_valid("AB1234564")
    assert ssn_valid("460-89-9847")
    assert not any(map(ssn_valid, ("000-12-3456", "666-12-3456", "123-00-4567", "123-45-0000")))
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
        {"text": "Is the store in Uruguay open?", "spans": []},
        {"text": "Seen at Children’s Clinic", "spans": [{"start": None, "end": None, "type": "PLACE", "text": "Children's Clinic"}]},  # noqa: RUF001 - as people type it
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    report = pii(path, options={})
    assert (report["n"], report["invalid"]) == (2, 1), "a span that nobody could place makes its row unscored"
    assert (report["precision"], report["recall"], report["leak_rate"]) == (0.5, 1.0, 0.0)
    assert report["harmless_touched"] == 1.0, "the place is reported"
    assert report["replaced_in_prompt"]["harmless_touched"] == 0.0, "and stays in the prompt"  # type: ignore[index]
    path.write_text(json.dumps({"text": "x", "spans": [{"start": 4, "end": 1, "type": "A"}]}))
    with pytest.raises(ValueError, match=r"rows.jsonl: row 1: field 'spans' \[0\] must have 0 <= start < end"):
        pii(path, options={})


@pytest.mark.parametrize(
    ("text", "people"),
    [
        ("Please book Latasha in for a flu shot on Friday.", ["Latasha"]),
        ("Where is the package I sent to Ximena Okonkwo?", ["Ximena Okonkwo"]),
        ("Did Latoya test positive for strep?", ["Latoya"]),
        ("Is the Tamika Clinic open today?", []),
        ("I will mark the rose and grace will hope", []),
    ],
)
def test_given_names_are_people_where_nothing_says_so(detector: Detector, text: str, people: list[str]) -> None:
    """A given name that the world's registers know is somebody, with the family name behind; a clinic of that name is not."""
    assert [text[m.start : m.end] for m in detector.detect(text) if m.type == "PERSON"] == people
