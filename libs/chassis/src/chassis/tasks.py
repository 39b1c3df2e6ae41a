"""Ends tasks that run beside others, and waits no longer than was said."""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

T = TypeVar("T")

_AGAIN_SECONDS = 1.0


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks until every one has ended, whatever it raises.

    Once is not enough: where a result comes at the moment of the cancellation, `asyncio.wait_for` of Python 3.11 returns it and forgets the
    cancellation (cpython issue 86296, mended in 3.12), so that a loop around it goes on.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_AGAIN_SECONDS)
    await asyncio.gather(*tasks, return_exceptions=True)


async def in_time(seconds: float, work: Awaitable[T]) -> T:
    """Return the result of `work`, cancelled with TimeoutError after so long; unlike `asyncio.wait_for` it forgets no cancellation."""
    async with asyncio.timeout(seconds):
        return await work
