"""Finds what a claim adds to its evidence although every word has a source: strength, certainty, and halves that do not belong together."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from encoders.claims import Reading, coverage, stem
from encoders.quantities import Figures, Quantity, quantities

# What is said of how many, how sure, why and how much: the weak words of each ladder, and the strong ones.
_LADDERS = {
    "how many": (
        "some many most several often usually sometimes commonly frequently generally typically few rarely occasionally certain",
        "all every always each never none everyone everybody nobody invariably entirely",
    ),
    "how sure": (
        (
            "may might could possibly possible perhaps likely probably potential potentially suggest suggests suggested appears seems "
            "believed thought expected unclear unknown preliminary"
        ),
        "will must definitely certainly certain guaranteed guarantee guarantees proven proves prove proved confirmed confirms always",
    ),
    "what leads to what": (
        "associated association linked link correlated correlates related risk",
        "causes cause caused causing cures cure cured prevents prevent prevented eliminates",
    ),
    "how much": ("about approximately around nearly almost up estimated roughly least most average", "exactly precisely"),
}
_RUNGS = tuple((name, frozenset(weak.split()), frozenset(strong.split())) for name, (weak, strong) in _LADDERS.items())
_HEDGED_VERB = re.compile(r"\b(?:may|might|could)\s+(?:also\s+|not\s+)?(?:be\s+)?([a-z]{3,})", re.IGNORECASE)
_HEDGES = re.compile(
    r"\b(?:may|might|could|can|possibly|perhaps|likely|probably|potential(?:ly)?|sometimes|often|usually|risk|chance|suggests?)\b",
    re.IGNORECASE,
)
_HALVES = re.compile(r"(?<!\s)\s*+;\s+|(?:,|(?<![\s,]))\s++(?:and|but|while|whereas|which)\s+")
_PRONOUN = re.compile(r"^(?:it|they|he|she|this|these|those|both|its|their)\b", re.IGNORECASE)
_VERB = re.compile(
    r"^(?:also\s+|then\s+)?(?:is|are|was|were|has|have|had|can|may|must|should|will|does|do|did|cannot|"
    r"[a-z]{3,}(?:s|ed)\s+(?!is\b|are\b|was\b|were\b|can\b|may\b|must\b|will\b|have\b)\w)",
)
_SAME_SUBJECT = 0.6
_CLEAR = 0.6
_LEAST_CONTENT = 2


@dataclass(frozen=True)
class Overreach:
    """What a claim adds, in words; `kind` is extrapolated or blended."""

    kind: str
    reason: str


def extrapolated(claim: Reading, evidence: Reading) -> Overreach | None:
    """Return how `claim` says more than the sentence it rests on; None where it does not."""
    if coverage(claim.content, evidence.content) < 0.5:
        return None
    said, given = frozenset(claim.tokens), frozenset(evidence.tokens)
    for name, weak, strong in _RUNGS:
        added, dropped = sorted(said & strong - given), sorted(given & weak - said)
        if added and dropped:
            return Overreach("extrapolated", f"the passage says {dropped[0]!r} where the claim says {added[0]!r} ({name})")
    if not _HEDGES.search(claim.text):
        stems = {stem(token) for token in claim.tokens}
        for match in _HEDGED_VERB.finditer(evidence.text):
            if stem(match[1].lower()) in stems:
                return Overreach("extrapolated", f"the passage says {match[0].lower()!r}, the claim says it without reserve (how sure)")
    return None


def blended(claim: Reading, passages: Sequence[Reading], belongs: Sequence[str]) -> Overreach | None:
    """Return how `claim` joins what different documents say; `belongs` names the document of each passage."""
    if len(set(belongs)) < 2:
        return None
    return _borrowed_figure(claim, passages, belongs) or _joined_halves(claim, passages, belongs)


def _borrowed_figure(claim: Reading, passages: Sequence[Reading], belongs: Sequence[str]) -> Overreach | None:
    figures = [q for q in quantities(claim.text) if not q.spelled]
    words = frozenset(word for word in claim.content if not any(character.isdigit() for character in word))
    if not figures or len(words) < _LEAST_CONTENT:
        return None
    shares = [coverage(words, passage.content) for passage in passages]
    best = max(range(len(passages)), key=lambda place: shares[place])
    held = {name: Figures([p.text for p, owner in zip(passages, belongs, strict=True) if owner == name]) for name in set(belongs)}
    for figure in figures:
        owners = [name for name in held if held[name].hold(figure)]
        if not owners or belongs[best] in owners or shares[best] < _CLEAR:
            continue
        top = max(shares[place] for place in range(len(passages)) if belongs[place] in owners)
        if top < 0.75 * shares[best] and _comparable(figure, held[belongs[best]]):
            return Overreach("blended", f"a {figure.kind} of another document than the rest of the claim")
    return None


def _comparable(figure: Quantity, figures: Figures) -> bool:
    if figure.kind in {"measure", "percent"}:
        return any(base == figure.value[1] for _, base, _ in figures.measures)
    return bool(figures.dates if figure.kind == "date" else figures.times if figure.kind == "time" else figures.numbers)


def _joined_halves(claim: Reading, passages: Sequence[Reading], belongs: Sequence[str]) -> Overreach | None:
    for match in _HALVES.finditer(claim.text):
        first, second = Reading(claim.text[: match.start()]), Reading(claim.text[match.end() :])
        rest = second.content - first.content
        if min(len(first.content), len(rest)) < _LEAST_CONTENT or not (_PRONOUN.match(second.text) or _VERB.match(second.text)):
            continue
        one = max(range(len(passages)), key=lambda place: coverage(first.content, passages[place].content))
        two = max(range(len(passages)), key=lambda place: (coverage(rest, passages[place].content), belongs[place] == belongs[one]))
        subject = frozenset(stem(token) for token in first.tokens[:6]) & first.content
        apart = belongs[one] != belongs[two] and coverage(rest, passages[two].content) >= _CLEAR
        foreign = coverage(subject, passages[two].content) < _SAME_SUBJECT
        own = max(coverage(rest, p.content) for p, name in zip(passages, belongs, strict=True) if name == belongs[one])
        if (
            apart
            and foreign
            and own < _SAME_SUBJECT * coverage(rest, passages[two].content)
            and coverage(first.content, passages[one].content) >= _CLEAR
        ):
            return Overreach("blended", "its second half is said of something else, in another document")
    return None
