"""Patient narratives and their JSON, built from the Avey vignettes (MIT)."""

import json
import random
import re
from typing import Any

from rows import DATA, Row, read_jsonl, share

SOURCE = "avey_vignettes"
_NUMBER = r"(?:\d+|an?|one|two|three|four|five|six|seven|eight|nine|ten|several|few|couple of)"
_SPAN = re.compile(rf"\b({_NUMBER})[ -](hour|day|week|month|year)s?\b(?![ -]old)", re.IGNORECASE)
_HABIT = re.compile(r"smok|pack|drink|alcohol|married|last child|cigar|history of (?:hyper|diab)|gestation|pregnan", re.IGNORECASE)
_VERBS = {"is": "am", "has": "have", "was": "was", "does": "do", "denies": "deny", "goes": "go", "tries": "try"}


def load_vignettes() -> list[dict[str, str]]:
    """Return the vignettes that state an age, a sex and a complaint."""
    records = read_jsonl(DATA / "triage_retail/avey_vignettes/dev.jsonl.gz")
    return [r for r in records if _demographics(r["demographics"]) and r["chief_complaints"].strip(" -")]


def _demographics(text: str) -> tuple[int, str] | None:
    match = re.fullmatch(r"(\d+) years? old (male|female)", text.strip().lower())
    return (int(match[1]), match[2]) if match else None


def duration(text: str) -> str | None:
    """Return the first time span of the complaint, e.g. `3 days`, skipping habits and ages."""
    for sentence in re.split(r"(?<=[.;])\s+", text):
        match = None if _HABIT.search(sentence) else _SPAN.search(sentence)
        if match:
            number = match[1].lower()
            plural = "" if number in {"1", "a", "an", "one"} else "s"
            return f"{number} {match[2].lower()}{plural}"
    return None


def _items(text: str) -> list[str]:
    found = (re.sub(r"\s+", " ", part).strip(" .-").lower() for part in text.split(","))
    return list(dict.fromkeys(part for part in found if part))


def absent(text: str) -> list[str]:
    """Return the findings that the vignette denies, without their `No`."""
    return [item[3:].strip() for item in _items(text) if item.startswith("no ") and len(item) > 5]


def first_person(text: str) -> str:
    """Rewrite a clinician's third person as the patient's own words."""

    def verb(match: re.Match[str]) -> str:
        word = match[2]
        plain = _VERBS.get(word, word[:-1] if re.fullmatch(r"[a-z]{2,}[^s]s", word) else word)
        return f"I {plain}"

    text = re.sub(r"\b(He|She|The patient|he|she|the patient|Patient)\s+(\w+)", verb, text)
    text = re.sub(r"^(Comes|Presents|Presented|Came|Complains|Complaining)\b", lambda m: f"I {m[1].lower()}", text)
    text = re.sub(r"^I (come|present|complain)s\b", r"I \1", text)
    text = re.sub(r"\b(his|her|the patient's)\b", "my", text)
    return re.sub(r"\bhim\b", "me", text)


def _denial(findings: list[str], rng: random.Random, *, own_words: bool) -> str:
    if not findings:
        return ""
    listed = findings[0] if len(findings) == 1 else ", ".join(findings[:-1]) + " or " + findings[-1]
    nos = ", ".join(f"no {item}" for item in findings)
    if own_words:
        return rng.choice([f"I don't have {listed}.", f"I have {nos}.", f"I have not had {listed}."])
    return rng.choice([f"Denies {listed}.", f"{nos[0].upper()}{nos[1:]}.", f"There is {nos}."])


def _opening(age: int, sex: str, complaints: list[str], rng: random.Random, *, own_words: bool) -> str:
    noun = {"male": rng.choice(["man", "male"]), "female": rng.choice(["woman", "female"])}[sex]
    if age < 16:
        noun = {"male": "boy", "female": "girl"}[sex]
    listed = " and ".join(complaints)
    if own_words:
        return rng.choice([f"I am a {age} year old {noun} with {listed}.", f"I'm {age}, {sex}.", f"Hello, {age} year old {noun} here."])
    return rng.choice([f"{age} year old {noun} with {listed}.", f"{age}-year-old {sex}.", f"A {noun} aged {age}."])


def _row(record: dict[str, str], variant: int) -> Row:
    key = f"{record['demographics']}|{record['correct_diagnosis']}|{record['presentation'][:60]}|{variant}"
    rng = random.Random(key)
    own_words = rng.random() < 0.6
    found = _demographics(record["demographics"])
    if found is None:
        raise ValueError(f"no age and sex in {record['demographics']!r}")
    complaints = _items(record["chief_complaints"])[:4]
    denied = absent(record["absent_findings"])
    count = min(len(denied), rng.choice([0, 2, 3, 3, 4, 5]))
    start = rng.randrange(max(1, len(denied) - count + 1))
    denied = denied[start : start + count]
    presentation = first_person(record["presentation"]) if own_words else record["presentation"]
    stated = not (own_words and rng.random() < 0.3)
    opening = _opening(*found, complaints, rng, own_words=own_words) if stated else ""
    parts = [opening, presentation.strip(" .") + "."]
    parts.append(_denial(denied, rng, own_words=own_words))
    reply: dict[str, Any] = {
        "age": found[0] if stated else None,
        "sex": found[1] if stated else None,
        "chief_complaints": complaints,
        "absent_findings": denied,
        "duration": duration(record["presentation"]),
    }
    return Row(
        id=f"avey-{share(key, 'id'):.10f}"[:16],
        source=SOURCE,
        group=record["correct_diagnosis"].lower(),
        variables={"question": " ".join(part for part in parts if part)},
        target=json.dumps(reply, ensure_ascii=False),
        gold=[],
    )


_SPANS = ("two days", "three days", "4 days", "a week", "2 weeks", "five hours", "a month", "10 days", "several days", "3 months")
_PEOPLE = {"male": ("son", "husband", "father", "little boy"), "female": ("daughter", "wife", "mother", "little girl")}


def _joined(items: list[str], word: str) -> str:
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + f" {word} {items[-1]}"


def _with_article(complaint: str, rng: random.Random) -> str:
    """Write a complaint the way people do: a fever of 39, a bad cough."""
    if complaint == "fever" and rng.random() < 0.5:
        return rng.choice(["a fever of 39", "a fever of 38.5", "a high fever", "a fever"])
    takes_one = re.fullmatch(r"(?:\w+ )?(?:cough|rash|headache|fever|lump|sore throat|ulcer|swelling)", complaint)
    return f"a {rng.choice(['', '', 'bad ', 'mild '])}{complaint}" if takes_one else complaint


def _short_row(record: dict[str, str], variant: int) -> Row | None:
    """Return a message of one or two sentences, as most messages of a portal are."""
    key = f"short|{record['demographics']}|{record['correct_diagnosis']}|{record['presentation'][:60]}|{variant}"
    rng, found = random.Random(key), _demographics(record["demographics"])
    short = [item for item in _items(record["chief_complaints"]) if len(item.split()) <= 4 and not item.startswith(("no ", "not "))]
    complaints = short[: rng.choice([1, 2, 2, 3])]
    if found is None or not complaints:
        return None
    span = rng.choice(_SPANS) if rng.random() < 0.65 else None
    denied = absent(record["absent_findings"])[: rng.choice([0, 0, 0, 1, 2])]
    listed = _joined([_with_article(item, rng) for item in complaints], "and")
    since = f" for {span}" if span else ""
    other, stated = rng.random() < 0.3, rng.random() < 0.3
    if other:
        age = f"{found[0]} year old " if stated else ""
        who = rng.choice(_PEOPLE[found[1]])
        text = rng.choice([f"My {age}{who} has had {listed}{since}.", f"My {age}{who} has {listed}{since}. What should I do?"])
    else:
        opening = rng.choice([f"I am {found[0]}, {found[1]}. ", f"I am a {found[0]} year old {found[1]}. "]) if stated else ""
        forms = [
            f"I have had {listed}{since}.",
            f"I have {listed}{since}.",
            f"I've had {listed}{since} now.",
            f"{listed[0].upper()}{listed[1:]}{since}.",
        ]
        text = opening + rng.choice(forms)
    reply: dict[str, Any] = {
        "age": found[0] if stated else None,
        "sex": found[1] if stated or other else None,
        "chief_complaints": complaints,
        "absent_findings": denied,
        "duration": span,
    }
    denial = rng.choice([f" No {_joined(denied, 'or')}.", f" I don't have {_joined(denied, 'or')}."]) if denied else ""
    return Row(
        id=f"avey-s{share(key, 'id'):.10f}"[:17],
        source="avey_short",
        group=record["correct_diagnosis"].lower(),
        variables={"question": text + denial},
        target=json.dumps(reply, ensure_ascii=False),
        gold=[],
    )


def build() -> tuple[list[Row], list[Row]]:
    """Return train and held-out rows; a diagnosis is wholly on one side."""
    train: list[Row] = []
    held_out: list[Row] = []
    for record in load_vignettes():
        if share(record["correct_diagnosis"].lower(), "symptom-split") < 0.2:
            held_out += filter(None, (_row(record, 0), _short_row(record, 0)))
        else:
            train += filter(None, (_row(record, 0), _row(record, 1), _short_row(record, 0), _short_row(record, 1)))
    return train, held_out
