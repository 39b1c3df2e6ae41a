"""How far each collection's source is searchable, and waiting until it is far enough."""

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prometheus_client import Counter, Gauge

from chassis.errors import UnavailableError

POSITION = Gauge("strata_knowledge_watermark", "Place in the source up to which a collection is searchable.", ["collection"])
DEMANDS = Counter("strata_retrieval_demands_total", "Queries that demanded a place in a source.", ["outcome"])


@dataclass(frozen=True)
class Watermark:
    """A place in a source, and when it was searchable (seconds since 1970)."""

    position: int
    at: float


class Watermarks:
    """What is known of every collection that has a source; only ever moves forward."""

    def __init__(self) -> None:
        self._known: dict[str, Watermark] = {}
        self._moved = asyncio.Condition()

    async def moved(self, collections: Iterable[str], position: int, at: float) -> None:
        """Note that everything up to `position` is searchable; an older place than the one known changes nothing."""
        async with self._moved:
            for collection in collections:
                if collection not in self._known or self._known[collection].position < position:
                    self._known[collection] = Watermark(position, at)
                    POSITION.labels(collection=collection).set(position)
            self._moved.notify_all()

    def of(self, collections: Iterable[str]) -> dict[str, int]:
        """Return the places of those collections that have a source."""
        return {name: self._known[name].position for name in collections if name in self._known}

    async def demand(self, wanted: Mapping[str, int], seconds: float, *, accept_stale: bool) -> dict[str, float]:
        """Wait until the index has come as far as `wanted`, at most `seconds`.

        Return the seconds since the last change became searchable of each collection that is still behind; none when all
        have arrived. Raise UnavailableError with code `knowledge_behind` for those unless `accept_stale`, and also then
        for one without a known place: nobody can say how old its answer is.
        """
        if not wanted:
            return {}
        try:
            async with asyncio.timeout(max(seconds, 0.0)), self._moved:
                await self._moved.wait_for(lambda: not self._behind(wanted))
        except TimeoutError:
            pass
        behind = self._behind(wanted)
        accepted = accept_stale and all(name in self._known for name in behind)
        DEMANDS.labels(outcome="met" if not behind else "stale" if accepted else "refused").inc()
        if behind and not accepted:
            places = {name: f"at {self._known[name].position}" if name in self._known else "at no known place" for name in sorted(behind)}
            named = ", ".join(f"{name} is {place} and not at {wanted[name]}" for name, place in places.items())
            raise UnavailableError(f"the index is behind: {named}", code="knowledge_behind")
        now = time.time()
        return {name: now - self._known[name].at for name in behind}

    def _behind(self, wanted: Mapping[str, int]) -> list[str]:
        return [name for name, position in wanted.items() if name not in self._known or self._known[name].position < position]
