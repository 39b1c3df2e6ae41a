"""Judges whether passages support a claim, and says what speaks against it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from encoders.claims import Reading, coverage, longest_copy, without_citations
from encoders.encoder import Encoder, Vectors
from encoders.overreach import Overreach, extrapolated
from encoders.quantities import Figures, Quantity, missing
from encoders.sentences import split_sentences

WEIGHTS_FILE = "support.json"
FEATURES = (
    "best_coverage",
    "pair_coverage",
    "all_coverage",
    "bigram_coverage",
    "longest_copy",
    "cosine_max",
    "cosine_second",
    "numbers_missing",
    "numbers_missing_in_best",
    "measures_missing",
    "names_missing",
    "negation_mismatch",
    "opposite_words",
    "negated_copy",
    "opposite_copy",
    "number_copy",
    "new_words",
    "claim_length",
    "coverage_squared",
    "cosine_squared",
)
_CANDIDATES = 4
_MOST_SENTENCES = 200
_LONGEST_CLAIM = 120
_FABRICATED = 0.05


class SupportFileError(ValueError):
    """Raised when the weights cannot be used; the text names the file."""


@dataclass(frozen=True)
class SupportScore:
    """The probability that the passages support the claim, the best evidence, and what speaks against it."""

    probability: float
    supported: bool
    best_passage: int
    best_sentence: str
    reasons: tuple[str, ...]
    # Figures that no passage holds, and how the claim says more than its best sentence.
    missing: tuple[Quantity, ...] = ()
    overreach: Overreach | None = None


@dataclass(frozen=True)
class Evidence:
    """The sentences of all passages that share most with a claim, best first."""

    claim: Reading
    everything: Reading
    sentences: tuple[Reading, ...]
    passages: tuple[int, ...]


def gather(claim: str, passages: Sequence[str]) -> Evidence:
    """Read claim and passages; keep the sentences that cover most of the claim."""
    reading = Reading(without_citations(claim))
    pairs = [(Reading(part), number) for number, text in enumerate(passages) for part in split_sentences(text)]
    pairs = pairs[:_MOST_SENTENCES]
    order = sorted(range(len(pairs)), key=lambda place: -coverage(reading.content, pairs[place][0].content))
    chosen = [pairs[place] for place in order[:_CANDIDATES]] or [(Reading(""), 0)]
    everything = Reading("\n".join(passages))
    return Evidence(reading, everything, tuple(pair[0] for pair in chosen), tuple(pair[1] for pair in chosen))


def features(evidence: Evidence, cosines: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return FEATURES for evidence whose sentences have these cosine similarities to the claim."""
    claim, everything = evidence.claim, evidence.everything
    best = evidence.sentences[_best(evidence, cosines)]
    pair = best.content.union(*(sentence.content for sentence in evidence.sentences[:2]))
    first = coverage(claim.content, best.content)
    negation = float(claim.negated != best.negated)
    opposite = float(bool(claim.opposites & frozenset(best.tokens) - frozenset(claim.tokens)))
    lost = 1.0 - coverage(claim.numbers, everything.numbers)
    lost_here = 1.0 - coverage(claim.numbers, best.numbers)
    measures = len(claim.measures - everything.measures) / max(1, len(claim.measures))
    names = 1.0 - coverage(claim.names, frozenset(everything.tokens))
    bigrams = len(claim.bigrams & everything.bigrams) / max(1, len(claim.bigrams))
    total = coverage(claim.content, everything.content)
    ranked = np.sort(cosines)[::-1]
    top, second = float(ranked[0]), float(ranked[min(1, len(ranked) - 1)])
    copied = longest_copy(claim.tokens[:_LONGEST_CLAIM], best.tokens)
    values = [
        first, coverage(claim.content, pair), total, bigrams, copied, top, second, lost, lost_here, measures, names,
        negation, opposite, negation * first, opposite * first, lost_here * first,
        np.log1p((1.0 - total) * len(claim.content)), np.log1p(len(claim.tokens)), first * first, top * top,
    ]  # fmt: skip
    return np.array(values, dtype=np.float32)


def _best(evidence: Evidence, cosines: NDArray[np.float32]) -> int:
    shared = [coverage(evidence.claim.content, sentence.content) for sentence in evidence.sentences]
    return int(np.argmax(np.array(shared) + cosines))


class SupportScorer:
    """Logistic regression over FEATURES; a number that no passage holds is never supported."""

    def __init__(self, encoder: Encoder, weights: Sequence[float], bias: float, threshold: float, version: str) -> None:
        """Hold weights on raw features; use `load` instead."""
        self._encoder = encoder
        self._weights = np.array(weights, dtype=np.float32)
        self._bias = bias
        self.threshold = threshold
        self.version = version

    @classmethod
    def load(cls, directory: Path, encoder: Encoder) -> Self:
        """Read `support.json` of a folder; raise SupportFileError."""
        path = directory / WEIGHTS_FILE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            weights = [float(content["weights"][name]) for name in FEATURES]
            bias, threshold, version = content["bias"], content["threshold"], content["version"]
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise SupportFileError(f"{str(path)!r} cannot be used: {error}") from error
        if content["encoder"] != encoder.identity.key():
            raise SupportFileError(f"{str(path)!r} needs encoder {content['encoder']!r}, not {encoder.identity.key()!r}")
        return cls(encoder, weights, float(bias), float(threshold), str(version))

    def is_word(self, text: str) -> bool:
        """Return whether the encoder's vocabulary has this word as a whole."""
        return self._encoder.is_word(text)

    def score(self, claim: str, passages: Sequence[str]) -> SupportScore:
        """Return how well `passages` support one claim; citation marks in it are ignored."""
        return self.score_all([(claim, passages)])[0]

    def score_all(self, claims: Sequence[tuple[str, Sequence[str]]]) -> list[SupportScore]:
        """Score claims, each with its passages; all texts are embedded in one pass."""
        figures = [Figures(passages) for _, passages in claims]
        # "0.4 g" is no new word where the passage says "400 mg".
        found = [gather(own.respelled(claim), passages) for own, (claim, passages) in zip(figures, claims, strict=True)]
        texts = list(dict.fromkeys(text for item in found for text in _texts(item)))
        place = {text: number for number, text in enumerate(texts)}
        vectors: Vectors = self._encoder.encode(texts)
        return [
            self._scored(item, vectors[[place[text] for text in _texts(item)]], own, passages)
            for item, own, (_, passages) in zip(found, figures, claims, strict=True)
        ]

    def _scored(self, evidence: Evidence, vectors: Vectors, figures: Figures, passages: Sequence[str]) -> SupportScore:
        cosines = vectors[1:] @ vectors[0]
        values = features(evidence, cosines)
        probability = float(1.0 / (1.0 + np.exp(-(values @ self._weights + self._bias))))
        best = _best(evidence, cosines)
        gaps = missing(evidence.claim.text, figures)
        if gaps or not passages:
            probability = min(probability, _FABRICATED)
        sentence = evidence.sentences[best]
        return SupportScore(
            probability,
            probability >= self.threshold,
            evidence.passages[best],
            sentence.text,
            _objections(evidence, sentence, gaps),
            gaps,
            extrapolated(evidence.claim, sentence),
        )


def _texts(evidence: Evidence) -> list[str]:
    return [evidence.claim.text, *(sentence.text for sentence in evidence.sentences)]


def _objections(evidence: Evidence, best: Reading, gaps: Sequence[Quantity]) -> tuple[str, ...]:
    """Return every objection in words."""
    claim, everything = evidence.claim, evidence.everything
    kinds = {"measure": "quantity", "percent": "percentage"}
    reasons = [f"the {kinds.get(gap.kind, gap.kind)} {gap.text.strip()} is in no passage" for gap in gaps]
    reasons += [f"the name {name!r} is in no passage" for name in sorted(claim.names - frozenset(everything.tokens))]
    if coverage(claim.content, best.content) >= 0.6:
        if claim.negated != best.negated:
            reasons.append("one of claim and passage is negated, the other is not")
        if words := sorted(claim.opposites & frozenset(best.tokens) - frozenset(claim.tokens)):
            reasons.append(f"the passage says {words[0]!r} where the claim says the opposite")
    if coverage(claim.content, everything.content) < 0.5:
        reasons.append("most words of the claim are in no passage")
    return tuple(reasons)
