"""Judges each sentence of an answer by the passages it may rest on."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import ClassVar

from encoders.claims import Reading, read
from encoders.grounding import SupportScore, SupportScorer
from encoders.overreach import blended
from guardrail.checks.base import CLEAR, Answer, Decision, Finding, OnError, Source
from guardrail.personal.pseudonyms import TOKEN
from guardrail.quoting import locate
from guardrail.sentences import Sentence, is_abstention

_FEWEST_WORDS = 3
_VERBATIM = 0.99
_WEAK = 0.3
_SHORTEST_NEW_WORD = 6
_WORD = re.compile(r"[a-z]+")
_PAST = re.compile(
    r"\b(?:previous(?:ly)?|former(?:ly)?|until|before|earlier version|no longer|used to|at that time|superseded)\b", re.IGNORECASE
)
# Days and months are common knowledge; a date stands or falls with its number.
_MONTHS = ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december")
_NO_NAMES = frozenset(_MONTHS) | {"monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"}
_FIGURES = {"measure": "a quantity", "percent": "a percentage", "date": "a date", "time": "a time", "number": "a number"}


@dataclass(frozen=True)
class Support:
    """How well the passages support one sentence; `weak` where it is too little, and `reason` says why."""

    sentence: Sentence
    probability: float
    source_id: str
    kind: str
    reason: str = ""
    weak: bool = False
    evidence: tuple[int, int] = (0, 0)


def today() -> date:
    """Return the day in UTC."""
    return datetime.now(UTC).date()


class GroundingCheck:
    """Objects to a claim without support, and to one that says more, or other, or older things than its passages."""

    name: ClassVar[str] = "grounding"
    on_error: OnError = "block"

    def __init__(
        self, scorer: SupportScorer, budget_ms: float, *, threshold: float | None = None, clock: Callable[[], date] = today
    ) -> None:
        """Use `scorer`, and its own threshold unless another is given; `clock` says which day it is."""
        self._scorer, self._clock = scorer, clock
        self.threshold = scorer.threshold if threshold is None else threshold
        self.version = scorer.version
        self.budget_ms = budget_ms

    def run(self, subject: Answer, /) -> Finding:
        """Judge what a model wrote; the detail holds the support of each sentence."""
        if not (subject.require_grounding and subject.by_model):
            return CLEAR
        claims = [s for s in subject.sentences if is_claim(s)]
        if not claims:
            return CLEAR
        if not subject.sources:
            detail = tuple(Support(s, 0.0, "", "no_passage", "there are no passages", weak=True) for s in claims)
            return Finding(1.0, Decision.ABSTAIN, "no_passages", "no passage can support an answer", detail)
        supports = self.supports(claims, subject.sources)
        weak = [s for s in supports if s.weak]
        score = 1.0 - min(s.probability for s in supports)
        if not weak:
            return Finding(score, detail=supports)
        reason = f"{len(weak)} of {len(supports)} sentences: {'; '.join(sorted({s.reason for s in weak}))}"
        return Finding(score, Decision.REGENERATE, "unsupported_claim", reason, supports)

    def judge(self, claim: str, sources: Sequence[Source]) -> tuple[float, int]:
        """Return the probability that `sources` support `claim` as a whole, and the place of the best one."""
        support = self.supports([Sentence(0, len(claim), claim, ())], sources)[0]
        return support.probability, next(place for place, source in enumerate(sources) if source.id == support.source_id)

    def supports(self, claims: Sequence[Sentence], sources: Sequence[Source]) -> tuple[Support, ...]:
        """Return the support of every claim; what is word for word in a passage needs no model, the rest is scored together."""
        chosen = [[s for s in sources if s.id in claim.citations] or list(sources) for claim in claims]
        copies = [_verbatim(claim, own) for claim, own in zip(claims, chosen, strict=True)]
        rest = [n for n, copy in enumerate(copies) if copy is None]
        texts = [(_open(claims[n].claim), [_text(source) for source in chosen[n]]) for n in rest]
        scores = dict(zip(rest, self._scorer.score_all(texts), strict=True))
        found = [copy or self._weighed(claims[n], chosen[n], sources, scores[n]) for n, copy in enumerate(copies)]
        return tuple(self._current(support, sources) for support in found)

    def _weighed(self, sentence: Sentence, own: Sequence[Source], sources: Sequence[Source], score: SupportScore) -> Support:
        claim, best = sentence.claim, own[score.best_passage]
        evidence = locate(score.best_sentence, best.text) or (0, 0)

        def said(kind: str, reason: str, probability: float, *, weak: bool = True) -> Support:
            return Support(sentence, probability, best.id, kind, reason, weak, evidence)

        low = min(score.probability, _WEAK * self.threshold)
        if score.missing:
            gap = score.missing[0]
            quoted = f" ({gap.text.strip()})" if gap.kind in {"measure", "percent"} else ""
            return said("figure", f"{_FIGURES[gap.kind]} that no passage holds{quoted}", low)
        mixed = blended(Reading(_open(claim)), [read(_text(s)) for s in own], [s.document_id or s.title for s in own])
        if beyond := mixed or score.overreach:
            return said(beyond.kind, beyond.reason, low)
        if strange_names(claim, sources):
            return said("name", "a name that no passage holds", score.probability)
        if score.probability < self.threshold:
            negated = any("negated" in reason for reason in score.reasons)
            return said(
                "negated" if negated else "unsupported", "negated on one side only" if negated else "not supported", score.probability
            )
        if any(not self._scorer.is_word(word) for word in new_words(claim, sources)):
            return said("word", "a word that neither a passage nor the language holds", score.probability)
        return said("supported", "", score.probability, weak=False)

    def _current(self, support: Support, sources: Sequence[Source]) -> Support:
        """Return `support`, weak if it rests on what is no longer in force without saying so."""
        best = next(source for source in sources if source.id == support.source_id)
        if support.weak or not stale(best, sources, self._clock()) or _PAST.search(support.sentence.claim):
            return support
        fresh = [s for s in sources if s.id != best.id and not stale(s, sources, self._clock())]
        other = _verbatim(support.sentence, fresh)
        if other is not None:
            return other
        return Support(
            support.sentence, min(support.probability, _WEAK * self.threshold), best.id, "stale", "the passage is no longer in force",
            weak=True, evidence=support.evidence,
        )  # fmt: skip


def _open(claim: str) -> str:
    return TOKEN.sub("the patient", claim)


def _text(source: Source) -> str:
    # A title is a line of its own: it names what its passage is about.
    return f"{source.title}\n{source.text}" if source.title else source.text


def _verbatim(sentence: Sentence, sources: Sequence[Source]) -> Support | None:
    """Return the support of a sentence that a passage holds word for word; that needs no model."""
    for source in sources:
        if (found := locate(sentence.claim, source.text)) is not None:
            return Support(sentence, _VERBATIM, source.id, "verbatim", evidence=found)
    return None


def stale(source: Source, sources: Sequence[Source], day: date) -> bool:
    """Return whether `source` is out of force on `day`, by its own word or beside a later version of its document."""
    now = day.isoformat()
    if source.superseded_by or (source.effective_to and source.effective_to <= now):
        return True
    name = source.document_id or source.title
    return bool(name and source.effective_from) and any(
        (other.document_id or other.title) == name and source.effective_from < other.effective_from <= now for other in sources
    )


def is_claim(sentence: Sentence) -> bool:
    """Return whether a sentence asserts anything that needs support."""
    text = sentence.claim
    return len(text.split()) >= _FEWEST_WORDS and not text.endswith(("?", ":")) and not is_abstention(text)


def new_words(claim: str, sources: Sequence[Source]) -> frozenset[str]:
    """Return the longer words of `claim` that are in no passage; small models glue pieces of words together."""
    known = " ".join(f"{source.title} {source.text}" for source in sources).casefold()
    words = (word for word in _WORD.findall(TOKEN.sub(" ", claim).casefold()) if len(word) >= _SHORTEST_NEW_WORD)
    return frozenset(word for word in words if word not in known)


def strange_names(claim: str, sources: Sequence[Source]) -> frozenset[str]:
    """Return the capitalised words inside `claim`, not at its start, that no passage holds."""
    known = " ".join(f"{source.title} {source.text}" for source in sources).casefold()
    names = Reading(TOKEN.sub(" ", claim)).names - _NO_NAMES
    return frozenset(name for name in names if name not in known)
