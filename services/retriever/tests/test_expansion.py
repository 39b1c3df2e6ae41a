"""Passages grow by the chunks around them, inside one version, with offsets that fit."""

import datetime as dt
from dataclasses import replace
from pathlib import Path

import pytest

from encoders import Encoder
from knowledge.lance import LanceIndex
from knowledge.preparation import cut
from knowledge.schema import Chunk, Document, Kind
from retriever.expansion import expanded
from retriever.fusion import Candidate
from retriever.pieces import tokens

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
TEXT = "\n\n".join(
    f"# Part {number}\n\n" + f"The {word} rule is about {word} things. " * 20 for number, word in enumerate(["red", "green", "blue"])
)


@pytest.fixture(params=["structural-180-v1", "structural-180-v2", "sentence-window-12-4-v1"])
def stored(request: pytest.FixtureRequest, encoder: Encoder, tmp_path: Path) -> tuple[LanceIndex, list[Chunk]]:
    """An index with two versions of a long document, and the chunks of the newer one."""
    index = LanceIndex.create(tmp_path, encoder.identity.key())
    document = Document("rules", Kind.ANCHORED, "long", "Rules", TEXT, version="2", effective_from=NOW, chunker=request.param)
    older = replace(document, version="1", text=TEXT.replace("rule", "custom"), effective_from=NOW - dt.timedelta(days=9))
    chunks = cut(document, index.encoder, NOW)
    before = [replace(chunk, superseded_at=NOW) for chunk in cut(older, index.encoder, NOW)]
    index.replace(Kind.ANCHORED, {document.key: [*before, *chunks]})
    return index, chunks


def _candidate(chunk: Chunk) -> Candidate:
    return Candidate(chunk, 1.0, 1.0, 1.0)


def test_a_passage_grows_within_its_version_and_budget(stored: tuple[LanceIndex, list[Chunk]], encoder: Encoder) -> None:
    """Each piece is what that version says at its place, nothing is said twice, and the budget holds."""
    index, chunks = stored
    own = chunks[1]
    whole = tokens(TEXT, encoder.count_tokens)
    sizes = []
    for most in (1, whole // 2, 4 * whole):
        (grown,) = expanded(index, [_candidate(own)], lambda _, most=most: most, encoder.count_tokens)  # type: ignore[misc]
        assert "custom" not in grown.chunk.text
        assert grown.chunk.start <= own.start < own.end <= grown.chunk.end
        assert all(TEXT[piece.start : piece.end] == piece.text for piece in grown.pieces)
        if not grown.pieces:
            assert TEXT[grown.chunk.start : grown.chunk.end] == grown.chunk.text
        sizes.append(tokens(grown.chunk.text, encoder.count_tokens))
    assert sizes[0] == tokens(own.text, encoder.count_tokens)
    assert sizes[1] <= max(whole // 2, sizes[0])
    # Everything but blanks, once.
    assert "".join(grown.chunk.text.split()) == "".join(TEXT.split())


def test_a_neighbour_that_a_better_passage_took_in_is_not_shown_again(stored: tuple[LanceIndex, list[Chunk]], encoder: Encoder) -> None:
    """The second passage of the same place would say the same; one that may not grow stays as it is."""
    index, chunks = stored
    both = [_candidate(chunks[0]), _candidate(chunks[1])]
    assert len(expanded(index, both, lambda _: 10_000, encoder.count_tokens)) == 1
    assert expanded(index, both, lambda _: 0, encoder.count_tokens) == both


def test_a_neighbour_with_other_labels_is_never_joined(stored: tuple[LanceIndex, list[Chunk]], encoder: Encoder) -> None:
    """What the query's predicate did not pass is not added afterwards."""
    index, chunks = stored
    other = replace(chunks[1], label_key="staff")
    assert expanded(index, [_candidate(other)], lambda _: 10_000, encoder.count_tokens)[0].chunk.text == other.text
