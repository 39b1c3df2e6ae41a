"""Orders the candidates of both legs again, by signals that are exact for each of them, within a budget."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from encoders.encoder import Vectors
from knowledge.index import Index
from retriever import signals
from retriever.fusion import Candidate
from retriever.weighting import RerankSettings


def completed(index: Index, vector: Vectors, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates with the cosine of those that only the words found, where they have a vector yet."""
    missing = [candidate.chunk for candidate in candidates if candidate.vector == 0]
    known = {chunk.chunk_id: chunk.vector for chunk in missing if chunk.vector}
    cosines = {name: _cosine(stored, vector) for name, stored in known.items()}
    unknown = [chunk for chunk in missing if chunk.chunk_id not in known]
    cosines |= index.cosines(vector, unknown) if unknown else {}
    return [replace(candidate, vector=cosines.get(candidate.chunk.chunk_id, candidate.vector)) for candidate in candidates]


def _cosine(stored: Sequence[float], vector: Vectors) -> float:
    return float(np.dot(np.asarray(stored, dtype=np.float32), vector))


class Reranker:
    """Scores candidates; keeps nothing of a query."""

    def __init__(self, settings: RerankSettings) -> None:
        """Weigh the signals as `settings` says."""
        self.settings = settings

    def order(self, query: str, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Return the candidates best first, with scores of 0 to 1; those beyond the limit stay behind, as they were."""
        few, rest = candidates[: self.settings.candidates], candidates[self.settings.candidates :]
        if not few:
            return []
        scores = self._scores(query, few)
        ranked = sorted(
            (replace(candidate, score=float(score)) for candidate, score in zip(few, scores, strict=True)),
            key=lambda candidate: (-candidate.score, candidate.chunk.chunk_id),
        )
        least = ranked[-1].score
        return [*ranked, *(replace(candidate, score=min(candidate.score, least)) for candidate in rest)]

    def _scores(self, query: str, candidates: Sequence[Candidate]) -> signals.Column:
        """Return the weighted mean of the signals of each candidate."""
        columns, words = self.columns(query, candidates)
        weights = self._weights(words)
        total = sum(weights.values()) or 1.0
        result: signals.Column = sum((weights[name] * column for name, column in columns.items()), np.zeros(len(candidates))) / total
        return result

    def columns(self, query: str, candidates: Sequence[Candidate]) -> tuple[dict[str, signals.Column], float]:
        """Return each signal (candidates,) by the name of its weight, all from 0 to 1, and the number of words of the query."""
        counts = signals.count(query, candidates)
        rarities = signals.rarity(counts, np.array([candidate.lexical for candidate in candidates]))
        title = signals.title_coverage(counts, rarities)
        columns = {
            "lexical": signals.scaled(signals.bm25(counts, rarities, self.settings.saturation, self.settings.length)),
            "vector": signals.scaled(signals.cosines(candidates)),
            "title_coverage": title,
            "title_said": title**2,
            "title_match": signals.scaled(signals.title_match(counts, rarities)),
            "pairs": signals.scaled(signals.pairs(counts, rarities)),
            "figures": signals.figure_coverage(counts),
        }
        return columns, float(counts.query.sum())

    def _weights(self, words: float) -> dict[str, float]:
        """Return the weights for a query of so many words."""
        settings = self.settings
        span = max(settings.message_words - settings.query_words, 1)
        share = min(1.0, max(0.0, (words - settings.query_words) / span))
        question, message = settings.query.model_dump(), settings.message.model_dump()
        return {name: (1 - share) * question[name] + share * message[name] for name in question}
