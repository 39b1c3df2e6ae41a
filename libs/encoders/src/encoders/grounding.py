"""Judges whether passages support a claim, and says what speaks against it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from encoders.alignment import ALIGNMENT, Aligner
from encoders.claims import Reading, coverage, denies, longest_copy, read, without_citations
from encoders.encoder import Encoder, EncoderUnavailableError
from encoders.entailment import EntailmentModel
from encoders.evidence import WINDOW_WORDS, Line, choose, read_lines
from encoders.overreach import Overreach, extrapolated
from encoders.quantities import Figures, Quantity, missing

WEIGHTS_FILE = "support.json"
WORD_FEATURES = (
    "best_coverage",
    "pair_coverage",
    "all_coverage",
    "window_coverage",
    "bigram_coverage",
    "longest_copy",
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
    "evidence_length",
    "coverage_squared",
)
FEATURES = (*WORD_FEATURES, *ALIGNMENT)
# What decides where the entailment model has read the pair: what words say, its logit, and both by how much of the evidence it saw;
# by that too what a short evidence, as in dialogue, shares with the claim.
_SHARED = ("all_coverage", "soft_coverage", "longest_copy", "bigram_coverage")
LOGIT_FEATURES = ("words", "logit", "words_whole", "logit_whole", *(f"{name}_whole" for name in _SHARED))
_CANDIDATES = 4
_LONGEST_CLAIM = 120
FABRICATED = 0.05
CONTRADICTED = 0.1
_NEAR_COPY = 0.7
_WHOLE = 0.6
# Reading one pair costs some 11 ms of CPU, and two would take the checks of an answer over their 80 ms.
MOST_READ = 1
Numbers = NDArray[np.float64]


class SupportFileError(ValueError):
    """Raised when the weights cannot be used; the text names the file."""


@dataclass(frozen=True)
class SupportScore:
    """The probability that the passages support the claim, the best evidence, and what is missing."""

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
    """The sentences of all passages that share most with a claim, best first, and the window that a model reads."""

    claim: Reading
    everything: Reading
    sentences: tuple[Line, ...]
    window: Reading

    @cached_property
    def best(self) -> Reading:
        """The sentence that covers most of the claim."""
        return self.sentences[0].reading


def gather(claim: str, passages: Sequence[str]) -> Evidence:
    """Read claim and passages; keep the sentences that cover most of the claim."""
    reading = Reading(without_citations(claim))
    lines = read_lines(passages)
    order = sorted(range(len(lines)), key=lambda place: -coverage(reading.content, lines[place].reading.content))
    best = tuple(lines[place] for place in order[:_CANDIDATES]) or (Line(Reading(""), 0),)
    window = Reading(" ".join(lines[place].reading.text for place in choose(reading, lines)))
    return Evidence(reading, read("\n".join(passages)), best, window)


def word_features(evidence: Evidence) -> Numbers:
    """Return WORD_FEATURES of a claim and its evidence."""
    claim, everything, best = evidence.claim, evidence.everything, evidence.best
    pair = best.content.union(*(line.reading.content for line in evidence.sentences[:2]))
    first = coverage(claim.content, best.content)
    negation = float(denies(best, claim))
    opposite = float(bool(claim.opposites & frozenset(best.tokens) - frozenset(claim.tokens)))
    lost_here = 1.0 - coverage(claim.numbers, best.numbers)
    bigrams = len(claim.bigrams & everything.bigrams) / max(1, len(claim.bigrams))
    total = coverage(claim.content, everything.content)
    values = [
        first, coverage(claim.content, pair), total, coverage(claim.content, evidence.window.content), bigrams,
        longest_copy(claim.tokens[:_LONGEST_CLAIM], best.tokens), 1.0 - coverage(claim.numbers, everything.numbers), lost_here,
        len(claim.measures - everything.measures) / max(1, len(claim.measures)),
        1.0 - coverage(claim.names, frozenset(everything.tokens)), negation, opposite, negation * first, opposite * first,
        lost_here * first,
        np.log1p((1.0 - total) * len(claim.content)), np.log1p(len(claim.tokens)), np.log1p(len(everything.tokens)), first * first,
    ]  # fmt: skip
    return np.array(values, dtype=np.float64)


def features(evidence: Evidence, aligner: Aligner) -> Numbers:
    """Return FEATURES of a claim and its evidence."""
    return np.append(word_features(evidence), aligner.features(evidence.claim.text, evidence.window.text))


def with_logit(words: float, values: Numbers, logit: float) -> Numbers:
    """Return LOGIT_FEATURES."""
    whole = min(1.0, WINDOW_WORDS / max(1.0, float(np.expm1(values[FEATURES.index("evidence_length")]))))
    shared = (float(values[FEATURES.index(name)]) * whole for name in _SHARED)
    return np.array([words, logit, words * whole, logit * whole, *shared])


@dataclass(frozen=True)
class Tree:
    """A decision tree in arrays: at node i, `feature[i]` up to `threshold[i]` goes left; a leaf is its own left child."""

    feature: tuple[int, ...]
    threshold: tuple[float, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]
    value: tuple[float, ...]

    def reach(self, values: Sequence[float]) -> float:
        """Return the value of the leaf that `values` fall into."""
        node = 0
        while (left := self.left[node]) != node:
            node = left if values[self.feature[node]] <= self.threshold[node] else self.right[node]
        return self.value[node]


@dataclass(frozen=True)
class Forest:
    """Boosted trees over FEATURES, each of which moves the logit a little, and a line through them."""

    trees: tuple[Tree, ...]
    bias: float
    slope: Numbers

    def logit(self, values: Numbers) -> float:
        """Return the logit of support."""
        row = values.tolist()
        return self.bias + float(self.slope @ values) + sum(tree.reach(row) for tree in self.trees)

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Self:
        """Return the trees that a file describes; raise KeyError, or ValueError for other features than ours."""
        if tuple(content["features"]) != FEATURES:
            raise ValueError(f"it was fitted on other features: {sorted(set(content['features']) ^ set(FEATURES))}")
        parts = ("feature", "threshold", "left", "right", "value")
        trees = tuple(Tree(*(tuple(tree[part]) for part in parts)) for tree in content["trees"])
        return cls(trees, float(content["bias"]), np.array(content["slope"], dtype=np.float64))


@dataclass(frozen=True)
class Judge:
    """Logistic regression over LOGIT_FEATURES."""

    weights: Numbers
    bias: float

    def logit(self, values: Numbers) -> float:
        """Return the logit of support."""
        return float(values @ self.weights + self.bias)


@dataclass(frozen=True)
class Cascade:
    """The judge of words, and where it is unsure the one that also knows the entailment model's logit, if there is one."""

    words: Forest
    threshold: float
    full: Judge | None = None
    sure_low: float = 0.0
    sure_high: float = 1.0
    # What puts the words' own threshold onto `threshold`, where they decide alone.
    moved: float = 0.0

    def unsure(self, logit: float) -> bool:
        """Return whether the words alone do not decide."""
        return self.full is not None and self.sure_low < chance_of(logit) < self.sure_high

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Self:
        """Return the cascade that a file describes; raise KeyError for what is missing."""
        words, threshold = Forest.read(content["words"]), float(content["threshold"])
        if "full" not in content:
            return cls(words, threshold)
        (low, high), full = content["sure"], content["full"]
        weights = np.array([float(full["weights"][name]) for name in LOGIT_FEATURES])
        return cls(words, threshold, Judge(weights, float(full["bias"])), float(low), float(high), float(content["moved"]))


def chance_of(logit: float) -> float:
    """Return the probability of a logit."""
    return float(1.0 / (1.0 + np.exp(-logit)))


@dataclass(frozen=True)
class Case:
    """One claim, ready to be judged."""

    evidence: Evidence
    values: Numbers
    missing: tuple[Quantity, ...]
    any_passage: bool


class SupportScorer:
    """Words decide the clear cases, an entailment model the others; a figure that no passage holds is never supported."""

    def __init__(self, encoder: Encoder, aligner: Aligner, cascade: Cascade, model: EntailmentModel | None, version: str) -> None:
        """Hold the parts; use `load` instead."""
        self._encoder, self._aligner, self._model, self._cascade = encoder, aligner, model, cascade
        self.threshold = cascade.threshold
        self.version = version

    @classmethod
    def load(cls, directory: Path, encoder: Encoder) -> Self:
        """Read `support.json`, and the entailment model where it names one; raise SupportFileError."""
        path = directory / WEIGHTS_FILE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            cascade, version = Cascade.read(content), str(content["version"])
            aligner = Aligner.load()
            model = EntailmentModel.load(directory, aligner.tokens) if cascade.full is not None else None
        except (OSError, KeyError, TypeError, ValueError, EncoderUnavailableError) as error:
            raise SupportFileError(f"{str(path)!r} cannot be used: {error}") from error
        if content["encoder"] != encoder.identity.key():
            raise SupportFileError(f"{str(path)!r} needs encoder {content['encoder']!r}, not {encoder.identity.key()!r}")
        return cls(encoder, aligner, cascade, model, version)

    def is_word(self, text: str) -> bool:
        """Return whether the encoder's vocabulary has this word as a whole."""
        return self._encoder.is_word(text)

    def score(self, claim: str, passages: Sequence[str]) -> SupportScore:
        """Return how well `passages` support one claim; citation marks in it are ignored."""
        return self.score_all([(claim, passages)])[0]

    def score_all(self, claims: Sequence[tuple[str, Sequence[str]]], *, most_read: int = MOST_READ) -> list[SupportScore]:
        """Score claims with their passages; the model reads at most `most_read` of them, the least clear first."""
        cases = [self._case(claim, passages) for claim, passages in claims]
        words = [self._cascade.words.logit(case.values) for case in cases]
        logits = [logit + self._cascade.moved for logit in words]
        # A made-up figure is refused whatever the model would say.
        unsure = [n for n, case in enumerate(cases) if self._cascade.unsure(words[n]) and not case.missing and case.any_passage]
        chosen = sorted(unsure, key=lambda n: abs(chance_of(logits[n]) - self.threshold))[:most_read]
        if self._model is not None and self._cascade.full is not None:
            read = self._model.logits([(cases[n].evidence.claim.text, cases[n].evidence.window.text) for n in chosen])
            for n, logit in zip(chosen, read, strict=True):
                logits[n] = self._cascade.full.logit(with_logit(words[n], cases[n].values, float(logit)))
        return [self._said(case, chance_of(logit)) for case, logit in zip(cases, logits, strict=True)]

    def _case(self, claim: str, passages: Sequence[str]) -> Case:
        figures = Figures(passages)
        # "0.4 g" is no new word where the passage says "400 mg".
        evidence = gather(figures.respelled(claim), passages)
        return Case(evidence, features(evidence, self._aligner), missing(evidence.claim.text, figures), bool(passages))

    def _said(self, case: Case, chance: float) -> SupportScore:
        if case.missing or not case.any_passage:
            chance = min(chance, FABRICATED)
        elif turned_round(case.evidence):
            chance = min(chance, CONTRADICTED)
        best = case.evidence.sentences[0]
        return SupportScore(
            chance,
            chance >= self.threshold,
            best.passage,
            best.reading.text,
            _objections(case.evidence, case.missing),
            case.missing,
            extrapolated(case.evidence.claim, best.reading),
        )


def turned_round(evidence: Evidence) -> bool:
    """Return whether the claim is nearly its best sentence, but for a negation or an opposite word."""
    claim, best = evidence.claim, evidence.best
    if coverage(claim.content, best.content) < _NEAR_COPY or len(claim.tokens) < _WHOLE * len(best.tokens):
        return False
    return denies(best, claim) or bool(claim.opposites & frozenset(best.tokens) - frozenset(claim.tokens))


def _objections(evidence: Evidence, gaps: Sequence[Quantity]) -> tuple[str, ...]:
    """Return every objection in words."""
    claim, everything, best = evidence.claim, evidence.everything, evidence.best
    kinds = {"measure": "quantity", "percent": "percentage"}
    reasons = [f"the {kinds.get(gap.kind, gap.kind)} {gap.text.strip()} is in no passage" for gap in gaps]
    reasons += [f"the name {name!r} is in no passage" for name in sorted(claim.names - frozenset(everything.tokens))]
    if coverage(claim.content, best.content) >= 0.6:
        if denies(best, claim):
            reasons.append("one of claim and passage is negated, the other is not")
        if words := sorted(claim.opposites & frozenset(best.tokens) - frozenset(claim.tokens)):
            reasons.append(f"the passage says {words[0]!r} where the claim says the opposite")
    if coverage(claim.content, everything.content) < 0.5:
        reasons.append("most words of the claim are in no passage")
    return tuple(reasons)
