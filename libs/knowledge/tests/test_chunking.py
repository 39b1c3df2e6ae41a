"""Chunking: offsets, sizes and borders."""

import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from knowledge.chunking import LONGEST_WORDS, chunk_spans

_TEXTS = st.lists(st.sampled_from(["word", "Other.", "\n\n", "\n# Heading\n", "\n- item", " ", "End! ", "x" * 30]), max_size=900).map(
    " ".join
)


@given(_TEXTS)
def test_chunks_cover_every_word_once_and_in_order(text: str) -> None:
    """No word is lost, doubled or moved, and no chunk is longer than the bound."""
    spans = chunk_spans(text)
    words = [word for start, end in spans for word in re.findall(r"\S+", text[start:end])]
    assert words == re.findall(r"\S+", text)
    assert all(left[1] <= right[0] for left, right in pairwise(spans))
    assert all(len(text[start:end].split()) <= LONGEST_WORDS for start, end in spans)


def test_a_short_text_stays_whole() -> None:
    """A text that fits is one chunk, without the blanks around it."""
    assert chunk_spans("  # Title\n\nOne paragraph.\n") == [(2, 25)]


def test_a_blank_text_has_no_chunks() -> None:
    """Nothing to find means nothing stored."""
    assert chunk_spans(" \n\n ") == []


def test_sections_begin_chunks() -> None:
    """Two long sections are cut at the heading between them."""
    section = "It says something of some length here. " * 20
    text = f"# First\n\n{section}\n\n# Second\n\n{section}"
    first, second = (text[start:end] for start, end in chunk_spans(text))
    assert first.startswith("# First")
    assert second.startswith("# Second")
