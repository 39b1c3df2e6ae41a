"""Makes one ranking of two: each leg's scores to 0..1, then a weighted mean."""

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from knowledge.index import Hit
from knowledge.schema import Chunk
from retriever.pieces import Piece
from retriever.settings import Weights


@dataclass(frozen=True)
class Candidate:
    """A chunk with its score, each leg's own (0 where a leg did not find it), and the score before reranking."""

    chunk: Chunk
    score: float
    lexical: float
    vector: float
    fused: float = 0.0
    # Where its text is made of several pieces of the version; empty where it is one.
    pieces: tuple[Piece, ...] = ()


def fuse(lexical: Sequence[Hit], nearest: Sequence[Hit], weights: Mapping[str, Weights]) -> list[Candidate]:
    """Return all chunks of both legs, best first; ties go by chunk id, so that a repeat gives the same order."""
    words, vectors = _by_id(lexical), _by_id(nearest)
    low_word, word_range = _range(words.values())
    low_vector, vector_range = _range(vectors.values())
    chunks = {hit.chunk.chunk_id: hit.chunk for hit in (*lexical, *nearest)}
    fused = []
    for name, chunk in chunks.items():
        weight, word, vector = weights[chunk.kind], words.get(name), vectors.get(name)
        score = 0.0
        if word is not None:
            score += weight.lexical * ((word - low_word) / word_range if word_range else 1.0)
        if vector is not None:
            score += weight.vector * ((vector - low_vector) / vector_range if vector_range else 1.0)
        score /= (weight.lexical + weight.vector) or 1.0
        fused.append(Candidate(chunk, score, word or 0.0, vector or 0.0, score))
    return sorted(fused, key=lambda candidate: (-candidate.score, candidate.chunk.chunk_id))


def aged(candidates: Sequence[Candidate], now: dt.datetime, half_lives: Mapping[str, float], weight: float) -> list[Candidate]:
    """Return the candidates best first after old ones of the named collections lost up to the share `weight` of their score.

    `half_lives` are in days, by collection; others keep their scores. Scores are 0 to 1 here: raw ones would make decay a filter.
    """
    if not half_lives:
        return list(candidates)
    fresh = []
    for candidate in candidates:
        days = half_lives.get(candidate.chunk.collection)
        if days is not None:
            age = max((now - candidate.chunk.effective_from).total_seconds() / 86_400, 0.0)
            candidate = replace(candidate, score=candidate.score * (1 - weight * (1 - 0.5 ** (age / days))))  # noqa: PLW2901 - the same one, aged
        fresh.append(candidate)
    return sorted(fresh, key=lambda candidate: (-candidate.score, candidate.chunk.chunk_id))


def _by_id(hits: Sequence[Hit]) -> dict[str, float]:
    return {hit.chunk.chunk_id: hit.score for hit in hits}


def _range(scores: Collection[float]) -> tuple[float, float]:
    """Return the least score and how far the best is above it; a leg whose hits all score the same gives each of them 1."""
    low = min(scores, default=0.0)
    return low, max(scores, default=0.0) - low
