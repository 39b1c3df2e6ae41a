"""Makes one ranking of two: what each leg says as 0..1, by scores or by places, then a weighted mean."""

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from knowledge.index import Hit
from knowledge.schema import Chunk
from retriever.pieces import Piece
from retriever.settings import Fusion, Weights

# The usual constant: how little the first places count above the next.
_RRF = 60


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


def fuse(lexical: Sequence[Hit], nearest: Sequence[Hit], weigh: Callable[[Chunk], Weights], method: Fusion = "min_max") -> list[Candidate]:
    """Return all chunks of both legs, best first; ties go by chunk id, so that a repeat gives the same order.

    `min_max` brings the scores of each leg to 0..1. `rrf` looks at their places alone (Cormack, Clarke, Buettcher 2009), which is for
    legs whose scores say nothing; the first place of both legs is 1.
    """
    share = _by_place if method == "rrf" else _by_score
    words, vectors = _by_id(lexical), _by_id(nearest)
    word_shares, vector_shares = share(lexical), share(nearest)
    chunks = {hit.chunk.chunk_id: hit.chunk for hit in (*lexical, *nearest)}
    fused = []
    for name, chunk in chunks.items():
        weight = weigh(chunk)
        score = weight.lexical * word_shares.get(name, 0.0) + weight.vector * vector_shares.get(name, 0.0)
        score /= (weight.lexical + weight.vector) or 1.0
        fused.append(Candidate(chunk, score, words.get(name, 0.0), vectors.get(name, 0.0), score))
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


def _by_score(hits: Sequence[Hit]) -> dict[str, float]:
    """Return how far each hit is from the worst (0) to the best (1); a leg whose hits all score the same gives each of them 1."""
    scores = _by_id(hits)
    low, high = min(scores.values(), default=0.0), max(scores.values(), default=0.0)
    return {name: (score - low) / (high - low) if high > low else 1.0 for name, score in scores.items()}


def _by_place(hits: Sequence[Hit]) -> dict[str, float]:
    return {hit.chunk.chunk_id: (_RRF + 1) / (_RRF + place) for place, hit in enumerate(hits, 1)}
