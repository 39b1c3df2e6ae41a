"""How two legs become one ranking, and what a collection may change about it."""

import datetime as dt
from pathlib import Path

import pytest
import yaml

from knowledge.index import Hit
from knowledge.preparation import cut
from knowledge.schema import Chunk, Document, Kind
from retriever.declared import RankingDeclarationError, load
from retriever.fusion import fuse
from retriever.settings import Weights

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def _chunk(name: str, collection: str = "rules") -> Chunk:
    return cut(Document(collection, Kind.FLUID, name, "", f"Text of {name}.", effective_from=NOW), "enc", NOW)[0]


def _names(lexical: list[Hit], nearest: list[Hit], method: str, **weights: Weights) -> list[tuple[str, float]]:
    def weigh(chunk: Chunk) -> Weights:
        return weights.get(chunk.collection, Weights())

    found = fuse(lexical, nearest, weigh, method)  # type: ignore[arg-type] # one of both
    return [(candidate.chunk.document_id, round(candidate.score, 3)) for candidate in found]


def test_scores_decide_or_places_alone() -> None:
    """One score far above the rest wins where scores count and says no more than a first place where they do not."""
    a, b, c = _chunk("a"), _chunk("b"), _chunk("c")
    words, vectors = [Hit(a, 90.0), Hit(b, 2.0), Hit(c, 1.0)], [Hit(b, 0.52), Hit(c, 0.51), Hit(a, 0.50)]
    assert [name for name, _ in _names(words, vectors, "min_max")] == ["b", "a", "c"]
    assert _names(words[:2], vectors[:1], "rrf") == [("b", 0.992), ("a", 0.5)]
    assert _names([Hit(a, 90.0)], [Hit(a, 0.9)], "rrf") == [("a", 1.0)]


def test_each_chunk_is_weighed_as_its_collection_says() -> None:
    """Where words alone count for one collection, its vectors bring nothing."""
    a, b = _chunk("a", "codes"), _chunk("b")
    found = _names([Hit(b, 3.0)], [Hit(a, 0.9)], "min_max", codes=Weights(lexical=1.0, vector=0.0))
    assert found == [("b", 0.5), ("a", 0.0)]


def test_a_collection_declares_its_ranking(tmp_path: Path) -> None:
    """What a domain says is read; what cannot be ends the start with the field that is wrong."""
    file = tmp_path / "desk" / "domain.yaml"
    file.parent.mkdir()
    ranking = {"fusion": "rrf", "weights": {"lexical": 0.7, "vector": 0.3}, "relevance_threshold": 0.3}
    file.write_text(yaml.safe_dump({"collections": [{"name": "codes", "ranking": ranking}, {"name": "rules"}]}))
    (found,) = load(tmp_path).values()
    assert found.model_dump() == ranking
    file.write_text(yaml.safe_dump({"collections": [{"name": "codes", "ranking": {"fusion": "sum"}}]}))
    with pytest.raises(RankingDeclarationError, match=r"'codes': ranking\.fusion"):
        load(tmp_path)
