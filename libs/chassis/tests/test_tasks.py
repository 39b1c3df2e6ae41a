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
    async with asyncio.timeout(180):
        await tasks.end(stubborn, broken)

    assert stubborn.cancelled()
    assert broken.done()
    assert len(lost) == 2


@pytest.mark.parametrize("steps", range(4))
async def test_a_cancellation_is_not_forgotten_for_a_result_that_comes_with_it(steps: int) -> None:
    """A loop that waits in time ends with the first cancellation, at whatever step of the result's way it comes."""
    came = asyncio.Event()

    async def listens() -> None:
        while True:
            await tasks.in_time(60, came.wait())
            came.clear()

    listening = asyncio.create_task(listens())
    await asyncio.sleep(0.01)
    came.set()
    for _ in range(steps):
        await asyncio.sleep(0)
    listening.cancel()
    await asyncio.wait([listening], timeout=180)

    assert listening.cancelled()
    listening.cancel()


async def test_what_is_late_is_cancelled() -> None:
    """The caller gets a TimeoutError, and the work does not go on."""
    work = asyncio.create_task(asyncio.sleep(60))
    with pytest.raises(TimeoutError):
        await tasks.in_time(0.01, work)
    assert work.cancelled()
