"""Reranking: every signal is exact for every candidate, within a budget, and off where it is switched off."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from encoders import Encoder
from knowledge.lance import LanceIndex
from knowledge.preparation import cut, embed
from knowledge.schema import Chunk, Document, Kind
from knowledge.visibility import Visibility
from retriever import signals
from retriever.fusion import Candidate, aged
from retriever.reranking import Reranker, completed
from retriever.retrieval import Retrieval
from retriever.settings import RankingSettings
from retriever.weighting import RerankSettings, SignalWeights
from retriever.windows import edges_first, within
from retriever.words import words

LONG_AGO = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
VISIBLE = Visibility("acme", frozenset(), ("notices",), NOW)
TEXTS = {
    "opening": ("Pool", "The pool opens at seven in the morning."),
    "lessons": ("Pool lessons", "Swimming lessons in the pool are on Monday."),
    "parking": ("Parking", "The car park beside the pool closes at nine."),
    "refunds": ("Refunds", "A refund for a ticket is paid within ten days."),
}


def _candidate(name: str, title: str, text: str, *, lexical: float = 0.0, vector: float = 0.0) -> Candidate:
    chunk = replace(Chunk(**dict.fromkeys(Chunk.__dataclass_fields__, "")), chunk_id=name, title=title, text=text, vector=None)
    return Candidate(chunk, 0.5, lexical, vector)


def _order(query: str, candidates: Sequence[Candidate], **weights: float) -> list[str]:
    zero = dict.fromkeys(SignalWeights.model_fields, 0.0)
    only = SignalWeights(**{**zero, **weights})
    reranker = Reranker(RerankSettings(query=only, message=only))
    return [candidate.chunk.chunk_id for candidate in reranker.order(query, candidates)]


@pytest.fixture(scope="module")
def index(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> LanceIndex:
    """Return an index of a few notices."""
    made = LanceIndex.create(Path(tmp_path_factory.mktemp("index")), encoder.identity.key())
    for name, (title, text) in TEXTS.items():
        document = Document("notices", Kind.FLUID, name, title, text, effective_from=LONG_AGO)
        made.replace(Kind.FLUID, {document.key: embed(cut(document, made.encoder, LONG_AGO), encoder)})
    made.tidy()
    return made


def test_words_are_stems_without_stop_words() -> None:
    """Forms of a word are the same word, and words that say nothing are none."""
    assert words("The lessons were opening").tolist() == words("lesson opened").tolist()
    assert len(words("what is the of")) == 0


def test_rarities_are_read_back_from_the_leg(index: LanceIndex) -> None:
    """A word that one document has is rarer than one that three have, though no statistics of the index were asked for."""
    query = "pool refund"
    hits = index.lexical(query, VISIBLE, 10)
    counts = signals.count(query, [Candidate(hit.chunk, 0.5, hit.score, 0.0) for hit in hits])
    found = dict(zip(np.unique(words(query)).tolist(), signals.rarity(counts, np.array([hit.score for hit in hits])), strict=True))
    assert found[words("refund")[0]] > 2 * found[words("pool")[0]]


def test_what_only_one_leg_found_gets_the_other_score(index: LanceIndex, encoder: Encoder) -> None:
    """A candidate of the lexical leg is scored with its stored vector, not with zero."""
    query = "When does the pool open?"
    asked = encoder.encode([query])[0]
    hits = index.lexical(query, VISIBLE, 10)
    bare = [Candidate(replace(hit.chunk, vector=None), 0.5, hit.score, 0.0) for hit in hits]
    cosines = signals.cosines(completed(index, asked, bare))
    stored = {
        chunk.chunk_id: chunk.vector
        for found in index.documents(Kind.FLUID, [f"notices/{name}" for name in TEXTS]).values()
        for chunk in found
    }
    assert cosines == pytest.approx([float(np.dot(stored[hit.chunk.chunk_id], asked)) for hit in hits], abs=1e-5)


async def test_what_waits_for_its_vector_is_found_by_its_words(encoder: Encoder, tmp_path: Path) -> None:
    """A chunk that is not embedded yet is served when it has most words of the query, and not for one of them."""
    index = LanceIndex.create(tmp_path, encoder.identity.key())
    document = Document("notices", Kind.FLUID, "new", "Gift cards", "Gift cards are valid for three years.", effective_from=LONG_AGO)
    index.replace(Kind.FLUID, {document.key: cut(document, index.encoder, LONG_AGO)})
    retrieval = Retrieval(index, encoder, RankingSettings())
    found = await retrieval.search("How long are gift cards valid?", VISIBLE, 4)
    assert [candidate.chunk.document_id for candidate in found.passages] == ["new"]
    assert (await retrieval.search("Which cards did the players hold in the final?", VISIBLE, 4)).passages == []


def test_without_a_vector_the_cosine_is_below_what_the_leg_found() -> None:
    """A chunk that waits for its vector is not ranked as if it had nothing to do with the query."""
    found = signals.cosines([_candidate("a", "", "x", vector=0.8), _candidate("b", "", "x", vector=0.6), _candidate("c", "", "x")])
    assert found[2] == pytest.approx(0.57)


@pytest.mark.parametrize(
    ("signal", "query", "better", "worse"),
    [
        (
            "title_coverage",
            "What does the policy say about refunds?",
            ("Refunds", "Ten days."),
            ("Refunds of tickets abroad", "Refund policy."),
        ),
        ("title_match", "gift card refund", ("Gift card refund", "Text."), ("Gift", "Card refund.")),
        ("pairs", "red blood cell", ("", "A red blood cell lives long."), ("", "Blood is red. Each cell lives.")),
        ("figures", "dose of B12 for 60 days", ("", "Take B12 for 60 days."), ("", "A dose of days and days.")),
        ("lexical", "refund refund ticket", ("", "refund"), ("", "ticket")),
    ],
)
def test_a_signal_prefers_what_it_is_for(signal: str, query: str, better: tuple[str, str], worse: tuple[str, str]) -> None:
    """Each signal alone puts the right one of two first."""
    assert _order(query, [_candidate("a", *worse), _candidate("b", *better)], **{signal: 1.0}) == ["b", "a"]


def test_a_long_message_has_weights_of_its_own() -> None:
    """Between a question and a message the weights are mixed by the number of words."""
    settings = RerankSettings(query=SignalWeights(vector=1.0), message=SignalWeights(vector=0.0), query_words=10, message_words=20)
    weigh = Reranker(settings)._weights
    assert [weigh(float(number))["vector"] for number in (5, 10, 15, 20, 90)] == [1.0, 1.0, 0.5, 0.0, 0.0]


@hypothesis_settings(deadline=None)
@given(
    st.lists(st.tuples(st.text(max_size=12), st.text(alphabet="ab 1.é", max_size=30)), min_size=1, max_size=6),
    st.text(alphabet="ab 1é?", max_size=20),
)
def test_any_text_can_be_ranked(texts: list[tuple[str, str]], query: str) -> None:
    """Whatever is asked of whatever, each candidate is kept once and has a score of 0 to 1."""
    candidates = [_candidate(str(number), *text, lexical=float(number)) for number, text in enumerate(texts)]
    ranked = Reranker(RerankSettings(candidates=4)).order(query, candidates)
    assert sorted(candidate.chunk.chunk_id for candidate in ranked) == sorted(candidate.chunk.chunk_id for candidate in candidates)
    assert all(0 <= candidate.score <= 1 + 1e-9 for candidate in ranked)
    assert [candidate.score for candidate in ranked] == sorted((candidate.score for candidate in ranked), reverse=True)


@pytest.mark.parametrize(
    ("settings", "outcome"),
    [
        (RerankSettings(), "done"),
        (RerankSettings(enabled=False), "off"),
        (RerankSettings(except_collections=frozenset({"notices"})), "off"),
        (RerankSettings(budget_ms=0.001), "skipped"),
    ],
)
async def test_the_gate_and_the_budget_hold(index: LanceIndex, encoder: Encoder, settings: RerankSettings, outcome: str) -> None:
    """Where reranking is off or late, the fused order stands and the answer says which."""
    retrieval = Retrieval(index, encoder, RankingSettings(rerank=settings))
    found = await retrieval.rank("When does the pool open?", VISIBLE)
    plain = await retrieval.rank("When does the pool open?", VISIBLE, rerank=False)
    assert found.rerank == outcome
    assert ("rerank" in found.latency_ms) == (outcome != "off")
    if outcome != "done":
        assert [candidate.chunk.chunk_id for candidate in found.passages] == [candidate.chunk.chunk_id for candidate in plain.passages]
    assert found.passages[0].chunk.document_id == "opening"


def test_old_chunks_of_a_named_collection_lose_score() -> None:
    """After one half-life half of the weight is gone; other collections keep their scores."""
    old = replace(_candidate("old", "", "x"), score=0.8)
    old = replace(old, chunk=replace(old.chunk, collection="prices", effective_from=NOW - dt.timedelta(days=10)))
    other = replace(old, chunk=replace(old.chunk, chunk_id="other", collection="policies"))
    ranked = aged([old, other], NOW, {"prices": 10.0}, 0.4)
    assert [(candidate.chunk.chunk_id, round(candidate.score, 6)) for candidate in ranked] == [("other", 0.8), ("old", 0.64)]


def test_passages_fit_and_the_best_are_at_the_edges() -> None:
    """Whole passages up to a number of words, at least one; the two best at the ends."""
    passages = [_candidate(name, "", "one two three") for name in "abcde"]
    assert [candidate.chunk.chunk_id for candidate in within(passages, 7)] == ["a", "b"]
    assert len(within(passages, 1)) == 1
    assert [candidate.chunk.chunk_id for candidate in edges_first(passages)] == ["a", "c", "e", "d", "b"]
