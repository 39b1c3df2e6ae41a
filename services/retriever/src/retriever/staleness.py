"""Counts passages that were answered after their document had changed in its source and before the change could be found."""

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable

from prometheus_client import Counter

from knowledge.schema import Chunk

STALE = Counter(
    "strata_retrieval_stale_hits_total",
    "Passages answered between the commit of their document's next change and its being searchable.",
    ["collection"],
)
_KEPT_SECONDS = 300.0
_MOST = 20_000


class Answered:
    """Which documents were answered lately, at most five minutes and 20,000 passages back."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """Take the time of day, in seconds since 1970, from `clock`."""
        self._clock = clock
        self._passages: deque[tuple[float, str, str]] = deque(maxlen=_MOST)

    def saw(self, chunks: Iterable[Chunk], searched_at: float) -> None:
        """Note the passages of an answer, and when the index was searched for them."""
        self._passages.extend((searched_at, chunk.collection, chunk.document_id) for chunk in chunks)
        while self._passages and self._passages[0][0] < self._clock() - _KEPT_SECONDS:
            self._passages.popleft()

    def changed(self, documents: Collection[str], committed_at: float, searchable_at: float) -> int:
        """Count the passages of these documents, as collection/document, that were searched between the two moments; return how many."""
        names, stale = set(documents), 0
        for at, collection, document_id in self._passages:
            if committed_at <= at < searchable_at and f"{collection}/{document_id}" in names:
                STALE.labels(collection=collection).inc()
                stale += 1
        return stale
