"""Tasks end although a library on the way loses a cancellation."""

import asyncio

import pytest

from chassis import tasks


async def _loses_one(lost: list[int]) -> None:
    while True:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            lost.append(1)
            if len(lost) > 1:
                raise


async def test_a_lost_cancellation_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that goes on after the first cancellation is cancelled again, and what another one raises is nobody's problem."""
    monkeypatch.setattr(tasks, "_AGAIN_SECONDS", 0.01)
    lost: list[int] = []

    async def fails() -> None:
        raise ValueError

    stubborn, broken = asyncio.create_task(_loses_one(lost)), asyncio.create_task(fails())
    await asyncio.sleep(0)
    async with asyncio.timeout(9):
        await tasks.end(stubborn, broken)

    assert stubborn.cancelled()
    assert broken.done()
    assert len(lost) == 2
