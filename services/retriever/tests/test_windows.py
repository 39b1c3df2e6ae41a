"""A long chunk is narrowed to what was asked, word for word."""

import datetime as dt
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from knowledge.schema import Chunk
from retriever.fusion import Candidate
from retriever.windows import narrow

_NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
_TEXT = (
    "Rotavirus spreads easily. Vomiting may last three days. Signs of dehydration in children are a dry mouth and no tears. "
    "Give fluids often. Call a doctor when a child is drowsy."
)


def _candidate(text: str, *, number: int = 0, start: int = 100) -> Candidate:
    values = dict.fromkeys(Chunk.__dataclass_fields__, "")
    chunk = replace(Chunk(**values), chunk_id=f"c{number}", text=text, start=start, end=start + len(text), effective_from=_NOW)
    return Candidate(chunk, 1.0, 1.0, 1.0)


def test_the_sentences_that_match_are_kept_with_their_place() -> None:
    """The window holds the answer, and its offsets point at the same words in the document."""
    (found,) = narrow([_candidate(_TEXT)], "What are the signs of dehydration in a child?", 16)

    assert "dry mouth and no tears" in found.chunk.text
    assert len(found.chunk.text.split()) <= 16
    assert _TEXT[found.chunk.start - 100 : found.chunk.end - 100] == found.chunk.text


def test_the_same_words_of_two_documents_are_shown_once() -> None:
    """Documents repeat each other; a reader gets each passage once, the better ranked one."""
    found = narrow([_candidate(_TEXT), _candidate(_TEXT, number=1)], "What are the signs of dehydration?", 16)

    assert [candidate.chunk.chunk_id for candidate in found] == ["c0"]


@given(st.text(alphabet="ab .\n-?!X", max_size=120), st.text(alphabet="ab X?", max_size=20), st.integers(min_value=1, max_value=30))
def test_a_window_is_always_a_piece_of_its_chunk(text: str, question: str, words: int) -> None:
    """Whatever the text looks like, nothing is made up and the offsets fit."""
    (found,) = narrow([_candidate(text)], question, words)

    assert text[found.chunk.start - 100 : found.chunk.end - 100] == found.chunk.text
