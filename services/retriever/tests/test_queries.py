"""What is searched for a long message, and what each part of it may cost."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from knowledge.schema import Chunk
from retriever.fusion import Candidate
from retriever.queries import key_terms, parts, rewritten
from retriever.variants import back_in_time, combined

LETTER = (
    "Hello, my daughter Anna is four years old and started kindergarten in September. "
    "Since Monday she has had a fever and a rash on her arms. "
    "The rash itches at night. My mother thinks that the rash comes from strawberries. Can a fever cause a rash in a child? "
    "We live in the north and it rains a lot."
)


def _candidate(name: str, score: float) -> Candidate:
    blank = Chunk(**dict.fromkeys(Chunk.__dataclass_fields__, ""))
    return Candidate(replace(blank, chunk_id=name), score, score, score)


def test_a_long_message_is_taken_apart() -> None:
    """Its key terms come first, then what it asks; never more than asked for, and never the message itself."""
    found = parts(LETTER, 3)
    assert len(found) == 3
    assert found[0] == key_terms(LETTER)
    assert {"rash", "fever", "child"} <= set(found[0].split())
    assert found[1] == "Can a fever cause a rash in a child?"


def test_a_question_is_searched_as_it_is() -> None:
    """A short query has no parts and is not rewritten."""
    question = "Can a fever cause a rash in a child?"
    assert parts(question, 5) == []
    assert rewritten(question, "terms") == rewritten(question, "question") == question
    assert rewritten(LETTER, "question") == question
    assert rewritten(LETTER, "") == LETTER


def test_a_message_that_asks_nothing_is_kept() -> None:
    """Rewriting to the question leaves a message without one as it is."""
    told = LETTER.replace("?", ".")
    assert rewritten(told, "question") == told


async def test_what_is_late_or_fails_is_left_out() -> None:
    """The budget bounds all variants together, and an error of one costs that one alone."""

    async def search(text: str) -> Sequence[Candidate]:
        if text == "late":
            await asyncio.sleep(600)
        if text == "broken":
            raise ValueError(text)
        return [_candidate(text, 1.0)]

    async with asyncio.timeout(180):
        found = await back_in_time(search, ["a", "late", "broken", "b"], 500)
    assert [few[0].chunk.chunk_id for few in found] == ["a", "b"]


def test_scores_are_combined() -> None:
    """The best variant counts beside the query; what only a variant found has no score or signals of its own yet."""
    own, others = [_candidate("a", 0.9), _candidate("b", 0.6)], [[_candidate("b", 1.0), _candidate("c", 0.4)], [_candidate("c", 0.8)]]
    found = combined(own, others, 0.5)
    assert [(c.chunk.chunk_id, round(c.score, 3)) for c in found] == [("b", 0.733), ("a", 0.6), ("c", 0.267)]
    assert (found[-1].lexical, found[-1].vector) == (0.0, 0.0)
