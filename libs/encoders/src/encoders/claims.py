"""What a claim and its passages have in common, word by word, number by number."""

# ruff: noqa: SIM905 - a list of a hundred words reads best as a sentence

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

_TOKEN = re.compile(r"[a-z]+(?:'[a-z]+)?|\d+(?:[.,]\d+)*%?")
_CITATION = re.compile(r"(?<!\s)\s*+\[\d+(?:\s*+,\s*+\d+)*\]")
_QUANTITY = re.compile(r"(?<![\w.])(\d+(?:,\d{3})*(?:\.\d+)?)\s*-?\s*(%|°?[a-zA-Z]+)?")
_NAME = re.compile(r"(?<![.!?]\s)(?<!^)\b[A-Z][a-zA-Z]{2,}\b")
_NEGATIONS = frozenset(
    (
        "no not never none nobody nothing neither nor without cannot can't don't doesn't didn't isn't aren't wasn't "
        "weren't won't wouldn't shouldn't couldn't hasn't haven't hadn't unable fails failed lack lacks lacking denies "
        "denied unlikely absent avoid stop"
    ).split()
)
# "No more than 8" bounds a figure and "not only" adds something; neither denies.
_BOUNDS = frozenset("more less fewer later earlier longer higher lower further".split())
# What a negation denies stands among the next words that mean something, where none follow in the one before.
_DENIED, _SEARCHED = 3, 8
_STOPWORDS = frozenset(
    (
        "a an the and or but of to in on at by for with from as is are was were be been being it its this that these "
        "those he she they we you i his her their our your my him them us me which who whom what when where how than "
        "then there here also very can could may might will would shall should must do does did has have had if so "
        "such into about over up out only just more most some any all each both other own same s t"
    ).split()
)
_OPPOSITES = (
    ("increase", "decrease"), ("increases", "decreases"), ("increased", "decreased"), ("higher", "lower"), ("high", "low"),
    ("more", "less"), ("more", "fewer"), ("before", "after"), ("first", "last"), ("always", "never"), ("all", "none"),
    ("positive", "negative"), ("improve", "worsen"), ("improves", "worsens"), ("reduce", "increase"), ("reduces", "increases"),
    ("reduced", "increased"), ("promote", "inhibit"), ("promotes", "inhibits"), ("activates", "inhibits"), ("up", "down"),
    ("above", "below"), ("safe", "unsafe"), ("safe", "dangerous"), ("allowed", "prohibited"), ("include", "exclude"),
    ("with", "without"), ("start", "stop"), ("best", "worst"), ("larger", "smaller"), ("older", "younger"), ("major", "minor"),
    ("male", "female"), ("better", "worse"), ("upregulated", "downregulated"), ("early", "late"), ("day", "week"),
    ("days", "weeks"), ("hours", "days"), ("weeks", "months"), ("months", "years"), ("hot", "cold"), ("left", "right"),
)  # fmt: skip
_OPPOSITE_OF: dict[str, set[str]] = {}
for _one, _other in _OPPOSITES:
    _OPPOSITE_OF.setdefault(_one, set()).add(_other)
    _OPPOSITE_OF.setdefault(_other, set()).add(_one)
_NUMBER_WORDS = {
    word: str(value)
    for value, word in enumerate(
        (
            "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
            "seventeen eighteen nineteen twenty"
        ).split()
    )
} | {"thirty": "30", "forty": "40", "fifty": "50", "sixty": "60", "hundred": "100", "once": "1", "twice": "2", "half": "0.5"}
_UNITS = {
    "milligram": "mg", "milligrams": "mg", "gram": "g", "grams": "g", "milliliter": "ml", "milliliters": "ml", "percent": "%",
    "hour": "hours", "hr": "hours", "hrs": "hours", "h": "hours", "day": "days", "week": "weeks", "month": "months", "year": "years",
    "yr": "years", "yrs": "years", "minute": "minutes", "min": "minutes", "mins": "minutes", "dollar": "dollars", "time": "times",
    "pill": "pills", "tablet": "tablets", "dose": "doses", "mcg": "mcg", "micrograms": "mcg", "kilograms": "kg", "pound": "pounds",
}  # fmt: skip
_MEASURES = frozenset(_UNITS.values()) | {"ml", "kg", "cm", "mm", "mmhg", "units", "iu", "c", "f", "degrees"}


def without_citations(text: str) -> str:
    """Return `text` without marks such as [1] or [2, 3]."""
    return _CITATION.sub("", text).strip()


@lru_cache(maxsize=16384)
def stem(word: str) -> str:
    """Return a crude stem, enough to match plural and tense."""
    for ending in ("ational", "ations", "ation", "ings", "ing", "edly", "ies", "ied", "ely", "es", "ed", "ly", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


@dataclass(frozen=True)
class Reading:
    """A text, read once: its tokens, content stems, quantities and names."""

    text: str

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        """Return words and numbers in lower case."""
        return tuple(token.replace(",", "") for token in _TOKEN.findall(self.text.lower().replace("\u2019", "'")))

    @cached_property
    def content(self) -> frozenset[str]:
        """Return the stems of the words that carry meaning."""
        return frozenset(stem(token) for token in self.tokens if token not in _STOPWORDS)

    @cached_property
    def bigrams(self) -> frozenset[tuple[str, str]]:
        """Return pairs of neighbouring stems."""
        stems = [stem(token) for token in self.tokens]
        return frozenset(pairwise(stems))

    @cached_property
    def numbers(self) -> frozenset[str]:
        """Return every number, digits or words, without thousands marks and trailing zeros."""
        found = {_plain(match[1]) for match in _QUANTITY.finditer(self.text)}
        return frozenset(found | {_NUMBER_WORDS[token] for token in self.tokens if token in _NUMBER_WORDS})

    @cached_property
    def measures(self) -> frozenset[tuple[str, str]]:
        """Return (number, unit) for every number followed by a unit of measure."""
        pairs = {(_plain(m[1]), _unit(m[2])) for m in _QUANTITY.finditer(self.text) if m[2] and _unit(m[2]) in _MEASURES}
        spelled = {(_NUMBER_WORDS[a], _unit(b)) for a, b in pairwise(self.tokens) if a in _NUMBER_WORDS and _unit(b) in _MEASURES}
        return frozenset(pairs | spelled)

    @cached_property
    def names(self) -> frozenset[str]:
        """Return capitalised words that do not begin a sentence."""
        return frozenset(match.lower() for match in _NAME.findall(self.text))

    @cached_property
    def negated(self) -> bool:
        """Return whether any word negates."""
        return any(_negates(token) for token in self.tokens)

    @cached_property
    def denied(self) -> tuple[frozenset[str], ...]:
        """Return for each negation the stems of what it may deny; nothing for one that denies what is not said."""
        return tuple(self._denied(place) for place, token in enumerate(self.tokens) if _negates(token) and not self._bounds(place))

    def _bounds(self, place: int) -> bool:
        following = self.tokens[place + 1 : place + 3]
        return following[:1] == ("only",) or (len(following) == 2 and following[0] in _BOUNDS and following[1] == "than")

    def _denied(self, place: int) -> frozenset[str]:
        after = [stem(t) for t in self.tokens[place + 1 : place + 1 + _SEARCHED] if _means(t) and t != "longer"]
        return frozenset(after[:_DENIED] or [stem(t) for t in self.tokens[:place] if _means(t)][-1:])

    @cached_property
    def opposites(self) -> frozenset[str]:
        """Return the words that would contradict this text."""
        return frozenset(word for token in self.tokens for word in _OPPOSITE_OF.get(token, ()))


def _negates(token: str) -> bool:
    return token in _NEGATIONS or token.endswith("n't")


def _means(token: str) -> bool:
    return token not in _STOPWORDS and not _negates(token)


def denies(passage: Reading, claim: Reading) -> bool:
    """Return whether one of the two denies what the other says; a passage may deny something that the claim leaves out."""
    if claim.denied:
        return not passage.negated
    return any(not denied or denied & claim.content for denied in passage.denied)


@lru_cache(maxsize=512)
def read(text: str) -> Reading:
    """Return the reading of a text; that of a passage is wanted once for each claim."""
    return Reading(text)


def _plain(number: str) -> str:
    digits = number.replace(",", "")
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def _unit(word: str) -> str:
    lower = word.lower().lstrip("°")
    return _UNITS.get(lower, lower)


def coverage(part: frozenset[str], whole: frozenset[str]) -> float:
    """Return the share of `part` found in `whole`; 1.0 if there is nothing to find."""
    return len(part & whole) / len(part) if part else 1.0


def longest_copy(claim: Sequence[str], passage: Sequence[str]) -> float:
    """Return the length of the longest run of claim tokens found in the passage, as a share of the claim."""
    best, previous = 0, [0] * (len(passage) + 1)
    for token in claim:
        current = [0] * (len(passage) + 1)
        for place, other in enumerate(passage, 1):
            if token == other:
                current[place] = previous[place - 1] + 1
        best = max(best, *current)
        previous = current
    return best / len(claim) if claim else 1.0
