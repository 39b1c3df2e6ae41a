"""Searches parts of a message, or texts that an answer might read like, beside the query, within a budget."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from retriever.fusion import Candidate

Search = Callable[[str], Awaitable[Sequence[Candidate]]]


async def back_in_time(search: Search, texts: Sequence[str], budget_ms: float) -> list[Sequence[Candidate]]:
    """Return what the texts find, as far as it is back within the budget; an error of one costs that one alone."""
    tasks = [asyncio.ensure_future(search(text)) for text in texts]
    try:
        done, _ = await asyncio.wait(tasks, timeout=budget_ms / 1000)
    finally:
        for task in tasks:
            task.cancel()
    return [task.result() for task in tasks if task in done and task.exception() is None]


def combined(own: Sequence[Candidate], others: Sequence[Sequence[Candidate]], weight: float) -> list[Candidate]:
    """Return all candidates best first, each with its own score and the weighted best one that a variant gave it.

    What only a variant found has no score of its own; its signals are those for the query (0 where they are not known).
    """
    best: dict[str, Candidate] = {}
    for candidate in (candidate for found in others for candidate in found):
        name = candidate.chunk.chunk_id
        if name not in best or candidate.score > best[name].score:
            best[name] = candidate
    known = {candidate.chunk.chunk_id: candidate for candidate in own}
    merged = [
        replace(
            known.get(name) or replace(best[name], lexical=0.0, vector=0.0),
            score=((known[name].score if name in known else 0.0) + weight * (best[name].score if name in best else 0.0)) / (1 + weight),
        )
        for name in {**known, **best}
    ]
    return sorted(merged, key=lambda candidate: (-candidate.score, candidate.chunk.chunk_id))
