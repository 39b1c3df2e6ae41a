"""Compares one collection after the other while events go on: what may differ is found beside them, and looked at again between them."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from ingestor.cdc import drift
from ingestor.cdc.drift import Drift, Mender
from ingestor.cdc.mapping import Table
from ingestor.cdc.rows import Rows
from knowledge.index import Index


class Comparison:
    """The comparison of ledger and index; what it writes goes through the thread of the ledger, a page at a time."""

    def __init__(
        self,
        index: Index,
        rows: Rows,
        mender: Mender,
        on_worker: Callable[[Callable[[], Any]], Awaitable[Any]],
        offer: Callable[[Mapping[str, tuple[str, ...]], list[str]], None],
    ) -> None:
        """Compare `rows` with `index`; texts without vectors are offered to the embedding lane."""
        self._index, self._rows, self._mender, self._on_worker, self._offer = index, rows, mender, on_worker, offer

    async def compare(self, table: Table, *, deep: range, trusted: bool, whole: bool = True) -> Drift:
        """Compare one collection by bucket hashes where it is to be compared as a `whole`, and buckets in `deep` word for word.

        What the ledger does not know is removed only where it is `trusted` to know all: the stream was read to its end, and
        the rows of the table are complete.
        """
        name = table.collection.name
        expected = await self._on_worker(partial(self._rows.expected, name))
        if not whole and not expected:
            return Drift()
        present, keys, count = {key: (value, chunks) for key, value, chunks in expected}, list[str](), 0
        if whole:
            present = await asyncio.to_thread(drift.holdings, self._index, name)
            keys, count = await asyncio.to_thread(drift.differing, expected, present)
        _, _, complete = await self._on_worker(partial(self._rows.table_state, table.source.name, table.name))
        pages = sorted({key for key, _, _ in expected if drift.bucket(key) in deep}.union(keys))
        found = Drift(buckets=drift.BUCKETS if whole else len(deep), differing=count)
        for first in range(0, len(pages), drift.PAGE):
            page = pages[first : first + drift.PAGE]
            work = partial(self._mender.mend, table, page, present, remove=trusted and complete > 0)
            mended, applied = await self._on_worker(work)
            self._offer(applied.waiting, applied.removed)
            found += mended
        return found
