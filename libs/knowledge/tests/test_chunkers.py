"""The chunkers: what all of them promise, and what each keeps together."""

import hashlib
import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoders.encoder import Vectors
from knowledge.chunkers.blocks import Part, blocks, words_in
from knowledge.chunking import CHUNKER, LONGEST_WORDS, UnknownChunkerError, check_chunker, chunk_spans

_TEXTS = st.lists(
    st.sampled_from([
        "word", "Other.", "\n\n", "\n", "\n# Heading\n", "\n- item", "\n  continued", "\n1. first", "\n| a | b |", "\n|---|---|",
        "\n```py\n", "\n```\n", "~~~", " ", "\t", "End! Next one", "x" * 30, "y" * 4000, "字" * 500, "。", "\u00a0", "\r\n", "#",
    ]),
    max_size=300,
).map(" ".join)  # fmt: skip
_BOUNDED = ("structural-180-v2", "sentence-window-5-1-v1", "sentence-window-3-2-v1", "semantic-180-v1")


def encode(texts: Sequence[str]) -> Vectors:
    """Return a unit vector for the words of each text; like texts have like vectors."""
    vectors = np.zeros((len(texts), 64), dtype=np.float32)
    for row, text in zip(vectors, texts, strict=True):
        for word in re.findall(r"\w+", text.lower()):
            row[hashlib.sha256(word.encode()).digest()[0] % 64] += 1
        row[0] += 0.01
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("chunker", [CHUNKER, *_BOUNDED])
@given(text=_TEXTS)
def test_every_character_that_is_not_blank_is_in_a_chunk(chunker: str, text: str) -> None:
    """Ranges are half-open, in order, never empty, and leave out nothing but blanks."""
    spans = chunk_spans(text, chunker, encode)
    assert all(0 <= start < end <= len(text) and text[start:end].strip() for start, end in spans)
    assert spans == sorted(spans)
    covered = bytearray(len(text))
    for start, end in spans:
        covered[start:end] = b"\x01" * (end - start)
    assert all(done or char.isspace() for done, char in zip(covered, text, strict=True))


@pytest.mark.parametrize("chunker", _BOUNDED)
@given(text=_TEXTS)
def test_no_chunk_is_longer_than_the_bound(chunker: str, text: str) -> None:
    """Not in words, and where words are endless not in characters."""
    for start, end in chunk_spans(text, chunker, encode):
        assert len(text[start:end].split()) <= LONGEST_WORDS
        # Blanks between the pieces of a chunk are not counted against it.
        assert sum(map(len, text[start:end].split())) <= LONGEST_WORDS * 12


@pytest.mark.parametrize("chunker", ["structural-180-v2", "semantic-180-v1"])
@given(text=_TEXTS)
def test_only_windows_overlap(chunker: str, text: str) -> None:
    """The others hold every word once."""
    spans = chunk_spans(text, chunker, encode)
    assert all(left[1] <= right[0] for left, right in pairwise(spans))


def test_the_blocks_of_a_page() -> None:
    """Headings, paragraphs, lists, tables and fenced code are told apart; a fence hides what looks like anything else."""
    text = "# Title\nIntro\nmore.\n\n- one\n  more\n\n- two\n\n"
    text += "| a | b |\n|---|---|\n| 1 | 2 |\nAfter.\n```\n# no heading\n\n- no list\n```\nEnd."
    assert [(block.part, text[block.start : block.end]) for block in blocks(text)] == [
        (Part.HEADING, "# Title"),
        (Part.PARAGRAPH, "Intro\nmore."),
        (Part.LIST, "- one\n  more\n\n- two"),
        (Part.TABLE, "| a | b |\n|---|---|\n| 1 | 2 |"),
        (Part.PARAGRAPH, "After."),
        (Part.CODE, "```\n# no heading\n\n- no list\n```"),
        (Part.PARAGRAPH, "End."),
    ]


@pytest.mark.parametrize(
    "whole",
    [
        "| city | days |\n|---|---|\n" + "\n".join(f"| city {n} | {n} |" for n in range(25)),
        "- first rule\n" + "\n".join(f"- rule {n} holds on weekdays" for n in range(25)),
        "```python\n" + "\n\n".join(f"value_{n} = compute(value, step_{n})" for n in range(40)) + "\n```",
    ],
    ids=["table", "list", "code"],
)
def test_structure_is_kept_whole(whole: str) -> None:
    """A table, a list or code that fits is in one chunk, blank lines and all."""
    prose = "Something of some length is said here about the matter. " * 12
    text = f"# Before\n\n{prose}\n\n{whole}\n\n{prose}\n\n# After\n\n{prose}"
    assert sum(whole in text[start:end] for start, end in chunk_spans(text, "structural-180-v2")) == 1


def test_a_long_table_is_cut_between_rows() -> None:
    """What does not fit is cut at lines, never inside one."""
    rows = [f"| row {n} | some text about it | and more |" for n in range(300)]
    text = "\n".join(rows)
    pieces = [text[start:end] for start, end in chunk_spans(text, "structural-180-v2")]
    assert len(pieces) > 5
    assert "\n".join(pieces) == text
    assert all(line in rows for piece in pieces for line in piece.split("\n"))


def test_sentence_windows_overlap_by_what_their_name_says() -> None:
    """Four sentences each, of which the next window repeats one; a heading counts as none and goes with what follows."""
    sentences = [f"Sentence number {n} is here." for n in range(9)]
    text = "# Facts\n\n" + " ".join(sentences[:4]) + "\n\n# More\n\n" + " ".join(sentences[4:])
    pieces = [text[start:end] for start, end in chunk_spans(text, "sentence-window-4-1-v1")]
    assert [re.findall(r"number (\d)", piece) for piece in pieces] == [["0", "1", "2", "3"], ["3", "4", "5", "6"], ["6", "7", "8"]]
    assert not any(piece.endswith("# More") for piece in pieces)


def test_the_semantic_chunker_cuts_where_the_subject_changes() -> None:
    """Two subjects without a heading between them are two chunks, cut at the sentence where the second begins."""
    cats = " ".join(["The cat sleeps on the warm mat.", "A cat and another cat drink milk.", "The mat of the cat is warm."] * 5)
    taxes = " ".join(["Tax returns list income and tax.", "Late tax returns cost a fine.", "Income tax returns are due in May."] * 5)
    text = f"{cats} {taxes}"
    spans = chunk_spans(text, "semantic-180-v1", encode)
    assert len(cats) + 1 in [start for start, _ in spans]


def test_a_chunker_must_be_known_and_have_what_it_needs() -> None:
    """A name that is close is refused, and so is a meaning without an encoder."""
    for name in ("structural", "sentence-window-3-3-v1", "sentence-window-0-0-v1", "semantic-180-v2", ""):
        with pytest.raises(UnknownChunkerError, match="known"):
            check_chunker(name)
    assert check_chunker("sentence-window-8-2-v1") == "sentence-window-8-2-v1"
    with pytest.raises(ValueError, match="needs an encoder"):
        chunk_spans("Some text.", "semantic-180-v1")


@pytest.mark.parametrize(
    "text",
    ["# a\n" * 20_000, "x" * 400_000, "这是一个句子。" * 20_000, "\n\u00a0" * 20_000 + "end"],
    ids=["headings", "word", "signs", "blanks"],
)
def test_what_is_no_prose_is_cut_by_the_usual_chunker_too(text: str) -> None:
    """Nothing but headings, an endless word, a script without blanks: no chunk grows with its document, nor the time for one."""
    spans = chunk_spans(text)
    assert all(len(text[start:end].split()) <= LONGEST_WORDS and end - start <= 24 * LONGEST_WORDS for start, end in spans)
    assert sum(len("".join(text[start:end].split())) for start, end in spans) == len("".join(text.split()))


def test_long_words_count_as_several() -> None:
    """Twelve characters are a word, so that text without blanks is bounded too."""
    assert words_in("x" * 121, 0, 121) == 11
