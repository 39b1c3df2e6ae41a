"""What runs beside everything else goes on while the index is away."""

import asyncio
from typing import Any

import pytest

from chassis.errors import UnavailableError
from chassis.tasks import end
from ingestor.announcing import Announcer
from ingestor.ledger import Ledger
from ingestor.library import Library


async def test_an_index_that_is_away_ends_nothing(library: Library, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tidying fails with OpenSearch down, is tried again and again, and the task that does it lives."""
    tries: list[bool] = []

    def away(*, patient: bool = False) -> None:
        tries.append(patient)
        raise UnavailableError("OpenSearch does not answer")

    monkeypatch.setattr(library, "tidy", away)
    bus: Any = None
    running = asyncio.create_task(Announcer(bus, ledger, library, flush_seconds=0.01).run())
    for _ in range(6000):
        await asyncio.sleep(0.01)
        if len(tries) > 2 or running.done():
            break
    assert (len(tries) > 2, running.done()) == (True, False)
    await end(running)
