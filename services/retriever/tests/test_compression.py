"""Passages are shortened to the sentences that matter, verbatim and with their places."""

import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders import Encoder
from knowledge.schema import Chunk
from retriever.compression import Compress, compress
from retriever.fusion import Candidate
from retriever.pieces import sentences, tokens
from retriever.weighting import SentenceWeights

STORED = (
    "The museum was built in 1901. It stands beside the river. Tickets for children cost four euros. "
    "The roof was renewed twice. A cloakroom is in the basement. Groups of children pay three euros each."
)
OTHER = "The river floods in spring. Boats leave at ten. Children under six go free."
WORDS_ALONE = SentenceWeights(vector=0.0)


def _candidate(text: str, *, name: str = "a", start: int = 50) -> Candidate:
    blank = Chunk(**dict.fromkeys(Chunk.__dataclass_fields__, ""))
    return Candidate(replace(blank, chunk_id=name, text=text, start=start, end=start + len(text)), 1.0, 1.0, 1.0)


def test_the_sentences_that_answer_stay_with_their_places(encoder: Encoder) -> None:
    """Every piece is what the version says there, an ellipsis stands for what is gone, and the saving is counted."""
    found = compress(
        "What do tickets for children cost?", [_candidate(STORED)], Compress(16), encoder, encoder.count_tokens, SentenceWeights()
    )
    (passage,) = found.passages
    assert [piece.text for piece in passage.pieces] == ["Tickets for children cost four euros.", "Groups of children pay three euros each."]
    assert [STORED[piece.start - 50 : piece.end - 50] for piece in passage.pieces] == [piece.text for piece in passage.pieces]
    assert passage.chunk.text == "Tickets for children cost four euros. …\nGroups of children pay three euros each."
    assert (passage.chunk.start, passage.chunk.end) == (passage.pieces[0].start, passage.pieces[-1].end)
    assert found.after <= 16 < found.before == tokens(STORED, encoder.count_tokens)


def test_each_passage_keeps_its_best_sentence_first(encoder: Encoder) -> None:
    """A second sentence of the best passage does not push the only one of another out."""
    found = compress(
        "What do children pay?", [_candidate(STORED), _candidate(OTHER, name="b")], Compress(16), encoder, encoder.count_tokens, WORDS_ALONE
    )
    assert [passage.chunk.chunk_id for passage in found.passages] == ["a", "b"]
    assert found.passages[1].chunk.text == "Children under six go free."
    assert found.passages[1].pieces == ()


def test_what_fits_is_left_alone(encoder: Encoder) -> None:
    """With budget for everything nothing changes, not even the blanks."""
    candidate = _candidate(STORED)
    found = compress("children", [candidate], Compress(keep_ratio=1.0), encoder, encoder.count_tokens, WORDS_ALONE)
    assert found.passages == [candidate]
    assert found.before == found.after


@pytest.mark.parametrize(
    ("limit", "most"), [(Compress(keep_ratio=0.5), 50), (Compress(30), 30), (Compress(30, 0.2), 20), (Compress(500, 0.7), 70)]
)
def test_the_smaller_limit_holds(limit: Compress, most: int) -> None:
    """A ratio and a number of tokens may both be given."""
    assert limit.budget(100) == most


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.text(alphabet="ab .\n-?!X…", max_size=80), min_size=1, max_size=3),
    st.text(alphabet="ab X?", max_size=12),
    st.integers(min_value=1, max_value=30),
)
def test_nothing_is_ever_made_up(encoder: Encoder, texts: list[str], question: str, most: int) -> None:
    """Whatever the texts look like, every piece stands in its passage at its place, in order and without overlap."""
    candidates = [_candidate(text, name=str(number)) for number, text in enumerate(texts)]
    found = compress(question, candidates, Compress(most), encoder, encoder.count_tokens, WORDS_ALONE)
    for passage in found.passages:
        whole, last = texts[int(passage.chunk.chunk_id)], 50
        for piece in passage.pieces:
            assert last <= piece.start < piece.end
            assert whole[piece.start - 50 : piece.end - 50] == piece.text
            last = piece.end
        if not passage.pieces:
            assert whole[passage.chunk.start - 50 : passage.chunk.end - 50] == passage.chunk.text


def test_blanks_cost_no_more_than_other_text() -> None:
    """A run of blanks is read once, not once for each of them, which took five seconds here."""
    started = time.process_time()
    assert sentences(" " * 40_000 + "The end.") == [(0, 40_008)]
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('It rains. "Often. 3 days." e.g. here', ["It rains.", '"Often.', '3 days." e.g. here']),
        ("First\n\n  second \n third", ["First", "  second ", " third"]),
        ("Bring:  - A pen - Two cards - no cash", ["Bring:", "A pen", "Two cards - no cash"]),
        ("Done. - Next\n - Last\n- Kept", ["Done.", "- Next", "Last", "- Kept"]),
    ],
)
def test_where_sentences_end(text: str, expected: list[str]) -> None:
    """At a mark before something that opens a sentence, at the end of a line, and at an item of a list within one."""
    assert [text[start:end] for start, end in sentences(text)] == expected
