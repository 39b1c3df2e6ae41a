"""Shortens passages to the sentences that matter: by words and by meaning, verbatim, no large model."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from knowledge.preparation import Embeds
from retriever.fusion import Candidate
from retriever.pieces import Count, Piece, joined, merged, sentences_of, tokens
from retriever.relevance import stem_weights, stems
from retriever.weighting import SentenceWeights

Column = NDArray[np.float64]


@dataclass(frozen=True)
class Compress:
    """How much of all passages together is kept: tokens of the encoder, a share of them, or the smaller of both."""

    max_tokens: int = 0
    keep_ratio: float = 0.0

    def budget(self, before: int) -> int:
        """Return how many of `before` tokens may stay."""
        share = math.ceil(self.keep_ratio * before) if self.keep_ratio else before
        return min(share, self.max_tokens or before, before)


@dataclass(frozen=True)
class Compressed:
    """The passages that are left, best first as before, and the tokens of all before and after."""

    passages: list[Candidate]
    before: int
    after: int


@dataclass(frozen=True)
class _Sentence:
    passage: int
    piece: Piece
    tokens: int


def compress(
    question: str, candidates: Sequence[Candidate], limit: Compress, encoder: Embeds, count: Count, weights: SentenceWeights
) -> Compressed:
    """Return the candidates with the sentences that have most to do with the question, in their order, within the limit.

    The best sentence of each passage comes before the second one of any, so that what is cited stays as diverse as it was
    found; a passage that fits with none is dropped. The very best sentence stays even where it alone is too long.
    """
    pieces = [list(pieces_of(candidate)) for candidate in candidates]
    read = [
        _Sentence(number, sentence, tokens(sentence.text, count)) for number, parts in enumerate(pieces) for sentence in sentences_of(parts)
    ]
    before = sum(sentence.tokens for sentence in read)
    budget = limit.budget(before)
    if not read or budget >= before:
        return Compressed(list(candidates), before, before)
    scores = sentence_scores(question, [sentence.piece.text for sentence in read], encoder, weights)
    kept = _within(read, scores, budget)
    left = []
    for number, candidate in enumerate(candidates):
        chosen = [sentence.piece for sentence in kept if sentence.passage == number]
        if chosen:
            parts = merged(pieces[number], chosen)
            left.append(replace(candidate, chunk=joined(candidate.chunk, parts), pieces=tuple(parts) if len(parts) > 1 else ()))
    return Compressed(left, before, sum(sentence.tokens for sentence in kept))


def pieces_of(candidate: Candidate) -> tuple[Piece, ...]:
    """Return the pieces of a candidate's text; one where it was never cut."""
    chunk = candidate.chunk
    return candidate.pieces or (Piece(chunk.start, chunk.end, chunk.text),)


def sentence_scores(question: str, texts: Sequence[str], encoder: Embeds, weights: SentenceWeights) -> Column:
    """Return how much each sentence has to do with the question (sentences,): its words, by how few sentences have them, and the cosine."""
    found = [stems(text) for text in texts]
    tell = stem_weights(question, found)
    total = sum(tell.values()) or 1.0
    scores: Column = weights.lexical * np.array([sum(tell[stem] for stem in sentence & tell.keys()) / total for sentence in found])
    if weights.vector:
        vectors = encoder.encode([question, *texts]).astype(np.float64)
        scores = scores + weights.vector * (vectors[1:] @ vectors[0])
    return scores


def _within(read: Sequence[_Sentence], scores: Column, budget: int) -> list[_Sentence]:
    """Return the sentences that fit, in order: first the best of each passage, then whatever scores most."""
    order = sorted(range(len(read)), key=lambda number: (-scores[number], number))
    first: dict[int, int] = {}
    for number in order:
        first.setdefault(read[number].passage, number)
    taken, used = {order[0]}, read[order[0]].tokens
    for number in [*(first[passage] for passage in sorted(first)), *order]:
        if number not in taken and used + read[number].tokens <= budget:
            taken.add(number)
            used += read[number].tokens
    return [read[number] for number in sorted(taken)]
