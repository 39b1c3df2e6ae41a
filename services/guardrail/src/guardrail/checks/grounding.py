"""Judges each sentence of an answer by the passages it may rest on."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from encoders.claims import Reading
from encoders.grounding import SupportScorer
from guardrail.checks.base import CLEAR, Answer, Decision, Finding, OnError, Source
from guardrail.personal.pseudonyms import TOKEN
from guardrail.sentences import Sentence, is_abstention

_FEWEST_WORDS = 3
_VERBATIM = 0.99
_SHORTEST_NEW_WORD = 6
_WORD = re.compile(r"[a-z]+")
# Days and months are common knowledge; a date stands or falls with its number.
_NO_NAMES = frozenset(
    [
        "monday",
        "tuesday",
        "wednesday",
        "thursday",
        "friday",
        "saturday",
        "sunday",
        "january",
        "february",
        "march",
        "april",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    ]
)


@dataclass(frozen=True)
class Support:
    """How well the passages support one sentence, and which of them does best; `reason` says why it is too little."""

    sentence: Sentence
    probability: float
    source_id: str
    reason: str = ""


class GroundingCheck:
    """Objects to a claim without support, and to a number, dose or name that no passage holds."""

    name: ClassVar[str] = "grounding"
    on_error: OnError = "block"

    def __init__(self, scorer: SupportScorer, budget_ms: float, *, threshold: float | None = None) -> None:
        """Use `scorer`, and its own threshold unless another is given."""
        self._scorer = scorer
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
            detail = tuple(Support(s, 0.0, "", "there are no passages") for s in claims)
            return Finding(1.0, Decision.ABSTAIN, "no_passages", "no passage can support an answer", detail)
        supports = tuple(self._support(sentence, subject.sources) for sentence in claims)
        weak = [s for s in supports if s.reason]
        score = 1.0 - min(s.probability for s in supports)
        if not weak:
            return Finding(score, detail=supports)
        reason = f"{len(weak)} of {len(supports)} sentences: {'; '.join(sorted({s.reason for s in weak}))}"
        return Finding(score, Decision.REGENERATE, "unsupported_claim", reason, supports)

    def _support(self, sentence: Sentence, sources: Sequence[Source]) -> Support:
        chosen = [source for source in sources if source.id in sentence.citations] or list(sources)
        probability, best = self.judge(sentence.claim, chosen)
        reason = "not supported" if probability < self.threshold else ""
        if not reason and strange_names(sentence.claim, sources):
            reason = "a name that no passage holds"
        if not reason and any(not self._scorer.is_word(word) for word in new_words(sentence.claim, sources)):
            reason = "a word that neither a passage nor the language holds"
        return Support(sentence, probability, chosen[best].id, reason)

    def judge(self, claim: str, sources: Sequence[Source]) -> tuple[float, int]:
        """Return the probability that `sources` support `claim`, and the place of the best one."""
        plain = " ".join(claim.split()).rstrip(".").casefold()
        for place, source in enumerate(sources):
            # What a passage says word for word needs no model; that saves most of the time of a careful answer.
            if plain and plain in " ".join(source.text.split()).casefold():
                return _VERBATIM, place
        # A title is a line of its own: it names what its passage is about.
        texts = [f"{source.title}\n{source.text}" if source.title else source.text for source in sources]
        found = self._scorer.score(TOKEN.sub("the patient", claim), texts)
        return found.probability, found.best_passage


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
