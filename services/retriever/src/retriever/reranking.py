"""Orders the candidates of both legs again, by signals that are exact for each of them, within a budget."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from encoders.encoder import Vectors
from knowledge.index import Index
from knowledge.schema import Kind
from retriever import signals
from retriever.fusion import Candidate
from retriever.weighting import RerankSettings


def with_vectors(index: Index, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates with the vectors of those that only the words found, where they have one yet."""
    missing = [candidate.chunk for candidate in candidates if candidate.vector == 0 and not candidate.chunk.vector]
    known: dict[str, list[float] | None] = {}
    for kind in Kind:
        keys = {chunk.document_key for chunk in missing if chunk.kind == kind}
        for chunks in index.documents(kind, sorted(keys)).values() if keys else ():
            known.update((chunk.chunk_id, chunk.vector) for chunk in chunks)
    return [
        replace(candidate, chunk=replace(candidate.chunk, vector=known[candidate.chunk.chunk_id]))
        if candidate.chunk.chunk_id in known and candidate.vector == 0
        else candidate
        for candidate in candidates
    ]


class Reranker:
    """Scores candidates; keeps nothing of a query."""

    def __init__(self, settings: RerankSettings) -> None:
        """Weigh the signals as `settings` says."""
        self.settings = settings

    def order(self, query: str, vector: Vectors, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Return the candidates best first, with scores of 0 to 1; those beyond the limit stay behind, as they were."""
        few, rest = candidates[: self.settings.candidates], candidates[self.settings.candidates :]
        if not few:
            return []
        scores = self._scores(query, vector, few)
        ranked = sorted(
            (replace(candidate, score=float(score)) for candidate, score in zip(few, scores, strict=True)),
            key=lambda candidate: (-candidate.score, candidate.chunk.chunk_id),
        )
        least = ranked[-1].score
        return [*ranked, *(replace(candidate, score=min(candidate.score, least)) for candidate in rest)]

    def _scores(self, query: str, vector: Vectors, candidates: Sequence[Candidate]) -> signals.Column:
        """Return the weighted mean of the signals of each candidate."""
        counts = signals.count(query, candidates)
        rarities = signals.rarity(counts, np.array([candidate.lexical for candidate in candidates]))
        title = signals.title_coverage(counts, rarities)
        columns = {
            "lexical": signals.scaled(signals.bm25(counts, rarities, self.settings.saturation, self.settings.length)),
            "vector": signals.scaled(signals.cosines(vector, candidates)),
            "title_coverage": title,
            "title_said": title**2,
            "title_match": signals.scaled(signals.title_match(counts, rarities)),
            "pairs": signals.scaled(signals.pairs(counts, rarities)),
            "figures": signals.figure_coverage(counts),
        }
        weights = self._weights(float(counts.query.sum()))
        total = sum(weights.values()) or 1.0
        result: signals.Column = sum((weights[name] * column for name, column in columns.items()), np.zeros(len(candidates))) / total
        return result

    def _weights(self, words: float) -> dict[str, float]:
        """Return the weights for a query of so many words."""
        settings = self.settings
        span = max(settings.message_words - settings.query_words, 1)
        share = min(1.0, max(0.0, (words - settings.query_words) / span))
        question, message = settings.query.model_dump(), settings.message.model_dump()
        return {name: (1 - share) * question[name] + share * message[name] for name in question}
