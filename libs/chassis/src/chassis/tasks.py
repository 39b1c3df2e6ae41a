"""Ends tasks that run beside others."""

import asyncio
from typing import Any

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
