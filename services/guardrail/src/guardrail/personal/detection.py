"""Decides which findings are personal data: what is replaced in a prompt, and the more that is reported and kept out of records."""
# ruff: noqa: RUF001 - people type curly quotes, and so must the patterns

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from guardrail.personal.european import WORDS
from guardrail.personal.plain import Plain, plainly
from guardrail.personal.recognizers import MODEL_SCORE, analyzer

Quasi = Literal["never", "linked", "always"]
Reported = Literal["linked", "stated", "always"]

_TYPES = {"PHONE_NUMBER": "PHONE", "IBAN_CODE": "IBAN", "IP_ADDRESS": "IP"}
# Alone, these point at nobody: "Boston", "Monday", "Acme" must reach the model and the tools.
QUASI_TYPES = frozenset(
    {"DATE", "DATE_PART", "FACILITY", "LOCATION", "ORGANIZATION", "AGE", "OLD_AGE", "NATIONALITY", "URL", "ORDER", "LOYALTY"}
)
# Even beside a person, these say too little to be worth the loss; `always` takes them too.
_COARSE = frozenset({"DATE_PART", "AGE", "NATIONALITY", "URL"})
# Tools look things up by them, so that they are reported and never replaced.
_BUSINESS = frozenset({"ORDER", "LOYALTY"})
_ORDER = (
    "EMAIL", "CARD", "IBAN", "NHS", "NPI", "DEA", "MRN", "HEALTH_PLAN", "SSN", "BIRTH_DATE", "LICENCE", "ACCOUNT", "IP", "ADDRESS",
    "PHONE", "PERSON", "DATE", "FACILITY", "LOCATION", "OLD_AGE", "AGE", "DATE_PART", "ORGANIZATION", "NATIONALITY", "URL", "LOYALTY",
    "ORDER",
)  # fmt: skip
TYPES: tuple[str, ...] = _ORDER
_RANK = {name: rank for rank, name in enumerate(_ORDER)}

_NAMED = frozenset({"PERSON", "ORGANIZATION", "LOCATION"})
_EPONYM = re.compile(
    r"(?:['’]s?)?[\s-]{1,4}(?:\w{1,40}\s{1,4})?(?:diseases?|syndromes?|scores?|scale|criteria|index|reflex|sign|tests?(?!\s+(?:results?|positive|negative))|staging|lymphoma|sarcoma|tumou?r|palsy"
    r"|stud(?:y|ies)|risk|esophagus|fracture|contracture|phenomenon|anemia|disorder|classification|ulcers?|maneuver|formula|equation|"
    r"infection|flares?|therapy|treatment|guidelines?|article|protocol|levels?|tablets?|inhibitors?|policy|orders?|card|app|store)\b",
    re.IGNORECASE,
)
_MEDICINE = re.compile(
    r"(?<!\w)\w{0,40}(?:pril|sartan|statin|mab|nib|olol|azole|cillin|mycin|oxacin|formin|gliptin|gliflozin|glutide|parin|xaban|dipine|prazole|setron|triptan"
    r"|zepam|zolam|oxetine|pram|pine|done|vir|cycline|sone|solone|profen|caine|phylline|tidine|thiazide|semide|taxel|platin|rubicin"
    r"|itis|osis|emia|carcinoma|sarcoma|lymphoma|melanoma|adenoma|pathy|algia|uria|ectomy|scopy|plasty)s?"
    r"|Humira|Enbrel|Plavix|Eliquis|Jardiance|Zoloft|Xarelto|Lipitor|Crestor|Ozempic|Wegovy|Coumadin|Tylenol|Advil|Motrin|Aleve|Benadryl|Zyrtec"
    r"|Claritin|Synthroid|Lantus|Humalog|Entresto|Farxiga|Trulicity|Keytruda|Opdivo|Remicade|Stelara|Warfarin|Aspirin|Insulin|Survival|AFib|Prozac"
    r"|Lexapro|Xanax|Ativan|Viagra|Cialis|Nexium|Prilosec|Zantac|Singulair|Flonase|Lyrica|Gabapentin|Metformin|Ibuprofen|Children",
    re.IGNORECASE,
)
# A question about a kind of patient names nobody: "a 55-year-old Hispanic male diagnosed in 2021".
_CASE = re.compile(
    r"\b(?:patients?|diagnos\w+|prognos\w+|guidelines?|side\s+effects?|treat(?:ment|ing|ed)s?|therap\w+|protocols?|management|managing|manage"
    r"|history\s+of|dos(?:e|es|age|ing)|mg|efficacy|effectiveness|efficacious|contraindicat\w*|chronic|acute|surgery|surgical|prescri\w+|symptoms?"
    r"|presenting|syndrome|disease|clinical|medications?|screening|vaccin\w+)\b",
    re.IGNORECASE,
)
# Goods that bear a title.
_GOODS = re.compile(
    r"(?:Dr\.?\s(?:Pepper|Martens?|Scholl|Oetker|Bronner|Teal)|Mr\.?\s(?:Clean|Coffee|Muscle|Kipling|Potato)|Mrs\.?\s(?:Dash|Butterworth))\b"
)
# Named by many and nobody's identifier.
_NOBODY = frozenset({"God", "Allah", "Santa", "Mastercard", "Visa", "PayPal"})
# Numbers of goods look like anything.
_OF_GOODS = re.compile(
    r"\b(?:version|firmware|build|release|v|product|part|item|model|lot|batch|sku|catalogue|ndc)\b[\s:.#]*(?:(?:code|number|no\.?)[\s:.#]*)?(?:is\s+)?$",
    re.IGNORECASE,
)
_CONFUSED = frozenset({"IP", "SSN", "PHONE", "ADDRESS"})
_PLACE_WORD = re.compile(r"\b(?:at|in|from|to|by|near|under|our|the)\s+$", re.IGNORECASE)


# A shorter value, such as a first name of three letters, is too often a word.
_SHORTEST_VALUE = 4


@dataclass(frozen=True)
class Mention:
    """A half-open span of characters that is personal data of one type."""

    start: int
    end: int
    type: str


@dataclass(frozen=True)
class Reading:
    """The personal data of a text: what is replaced in a prompt, and the more that is reported."""

    replaced: list[Mention]
    reported: list[Mention]


@dataclass(frozen=True)
class Policy:
    """What counts: the least score, which quasi-identifiers are replaced and which are reported, and identifiers of the business."""

    threshold: float = 0.5
    quasi: Quasi = "linked"
    business: tuple[str, ...] = ()
    weights: Path | None = None
    reported: Reported = "stated"


class Detector:
    """Finds personal data in texts; safe to call from several threads."""

    def __init__(self, policy: Policy) -> None:
        """Load the engine if this process has not yet."""
        self.policy = policy
        self._engine = analyzer(policy.weights)
        self._business = re.compile("|".join(f"(?:{p})" for p in policy.business)) if policy.business else None

    def detect(self, text: str) -> list[Mention]:
        """Return what is to be replaced before a model sees the text: non-overlapping mentions in order."""
        return self.read(text).replaced

    def report(self, text: str) -> list[Mention]:
        """Return what no record may show and callers of the check are told: non-overlapping mentions in order."""
        return self.read(text).reported

    def read(self, text: str) -> "Reading":
        """Return both; the text is analysed once, as it looks."""
        plain = plainly(text)
        reading = self._read(plain.text)
        return Reading(_placed(plain, reading.replaced), _placed(plain, reading.reported)) if plain.places else reading

    def _read(self, text: str) -> "Reading":
        found = self._engine.analyze(text=text, language="en", score_threshold=self.policy.threshold)
        mentions = self._without_business(text, [m for r in found if (m := _mention(text, r)) is not None])
        replaced = self._replaced([m for m in mentions if m.type not in _BUSINESS], self.policy.quasi, text)
        return Reading(merge(text, replaced), merge(text, [*replaced, *self._reported(mentions, text)]))

    def _reported(self, mentions: Sequence[Mention], text: str) -> list[Mention]:
        if self.policy.reported == "linked":
            return [*self._replaced(mentions, "linked", text), *(m for m in mentions if m.type in _BUSINESS)]
        names_somebody = any(m.type not in QUASI_TYPES for m in mentions)
        if self.policy.reported == "stated" and not names_somebody and _CASE.search(text):
            return self._replaced(mentions, "linked", text)
        return list(mentions)

    def _replaced(self, mentions: Sequence[Mention], quasi_policy: Quasi, text: str) -> list[Mention]:
        direct = [m for m in mentions if m.type not in QUASI_TYPES]
        quasi = [m for m in mentions if m.type in QUASI_TYPES]
        if quasi_policy == "always":
            return [*direct, *quasi]
        kinds = {m.type for m in quasi}
        # Who was in which clinic on which day is a person without a name.
        if quasi_policy == "never" or not (direct or {"DATE", "FACILITY"} <= kinds):
            return direct
        return [
            *direct,
            *(m for m in quasi if m.type not in _COARSE and (m.type != "ORGANIZATION" or _PLACE_WORD.search(text, 0, m.start))),
        ]

    def _without_business(self, text: str, mentions: Sequence[Mention]) -> list[Mention]:
        if self._business is None:
            return list(mentions)
        spans = [match.span() for match in self._business.finditer(text)]
        return [
            m
            for m in mentions
            if m.type in _BUSINESS or not any(s < m.end and m.start < e and m.end - m.start <= e - s + 2 for s, e in spans)
        ]


def _placed(plain: Plain, mentions: Sequence[Mention]) -> list[Mention]:
    return [Mention(*plain.original(m.start, m.end), m.type) for m in mentions]


def _mention(text: str, result: Any) -> Mention | None:
    kind = _TYPES.get(result.entity_type, result.entity_type)
    start, end = _trimmed(text, result.start, result.end)
    if start >= end or kind not in _RANK:
        return None
    if kind in _CONFUSED and _OF_GOODS.search(text, max(0, start - 24), start):
        return None
    if kind == "PERSON" and _GOODS.match(text, start, end):
        return None
    # What a pattern found has its evidence beside it; what the model found needs some.
    if kind in _NAMED and result.score <= MODEL_SCORE and not _plausible_name(text, start, end):
        return None
    return Mention(start, end, kind)


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    opening = "" if ")" in text[start:end] else "("
    while start < end and text[start] in f" \t\r\n,;:>\"'{opening}":
        start += 1
    while end > start and text[end - 1] in " \t\r\n,;:?!\"'":
        end -= 1
    return start, end


def _plausible_name(text: str, start: int, end: int) -> bool:
    words = text[start:end].split()
    if "\n" in text[start:end].strip() or any(c.isdigit() for c in text[start:end]) or "@" in text[start:end]:
        return False
    if (
        words[0] in _NOBODY
        or words[0].lower() in WORDS
        or _EPONYM.match(text, end)
        or any(_MEDICINE.fullmatch(w.strip(".,'’")) for w in words)
    ):
        return False
    return any(w[:1].isupper() for w in words) and not (len(words) == 1 and words[0].isupper() and len(words[0]) <= 5)


def merge(text: str, mentions: Iterable[Mention]) -> list[Mention]:
    """Return mentions without overlaps; what overlaps becomes one of the most telling type."""
    merged: list[Mention] = []
    for mention in sorted(mentions, key=lambda m: (m.start, -m.end)):
        last = merged[-1] if merged else None
        if last is None or mention.start >= last.end:
            merged.append(mention)
            continue
        kind = min(last.type, mention.type, key=_RANK.__getitem__)
        start, end = last.start, max(last.end, mention.end)
        merged[-1] = Mention(*_trimmed(text, start, end), kind)
    return merged


def everywhere(texts: Sequence[str], found: Sequence[Sequence[Mention]], known: Mapping[str, str] | None = None) -> list[list[Mention]]:
    """Return the mentions of each text, and every other place where a direct identifier of any text or a known one stands.

    `known` maps values that were found earlier to their types.
    """
    values = {value: kind for value, kind in (known or {}).items() if kind not in QUASI_TYPES}
    values |= {text[m.start : m.end]: m.type for text, ms in zip(texts, found, strict=True) for m in ms if m.type not in QUASI_TYPES}
    values = {value: kind for value, kind in values.items() if len(value) >= _SHORTEST_VALUE}
    if not values:
        return [list(mentions) for mentions in found]
    longest_first = sorted(values, key=len, reverse=True)
    pattern = re.compile(r"(?<!\w)(?:" + "|".join(map(re.escape, longest_first)) + r")(?!\w)")
    again = [[Mention(*match.span(), values[match[0]]) for match in pattern.finditer(text)] for text in texts]
    return [merge(text, [*mentions, *more]) for text, mentions, more in zip(texts, found, again, strict=True)]
