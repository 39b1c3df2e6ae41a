"""Compares a source that can be read with the ledger, row by row."""

from collections.abc import Awaitable, Callable
from typing import Any

from ingestor.cdc.applying import Applier, Group, Reporter
from ingestor.cdc.drift import Drift
from ingestor.cdc.envelopes import Change, row_change
from ingestor.cdc.health import RowReader
from ingestor.cdc.mapping import Table

_PAGE = 500


async def from_source(
    table: Table,
    reader: RowReader,
    applier: Applier,
    reporter: Reporter,
    on_worker: Callable[[Callable[[], Any]], Awaitable[Any]],
    after: Callable[[Group], Awaitable[None]],
) -> Drift:
    """Read every row of a table and take over what differs; rows that the source no longer has are removed."""
    page: list[Change] = []
    found, lowest = Drift(), None

    async def hear(changes: list[Change]) -> Drift:
        group, missing, stale = await on_worker(lambda: applier.hear_rows(changes, reporter))
        await after(group)
        return Drift(missing=missing, stale=stale, repaired=missing + stale, embedded=sum(map(len, group.applied.waiting.values())))

    async for row in reader.rows(table.name):
        lowest = row.position if lowest is None else min(lowest, row.position)
        page.append(row_change(table, row.values, row.position))
        if len(page) >= _PAGE:
            found += await hear(page)
            page = []
    found += await hear(page)
    if lowest is None:
        # A table that is empty gives no place below which rows are known to be gone; a snapshot does.
        return found
    place = lowest
    group, gone = await on_worker(lambda: applier.end_rows(table, place, reporter))
    await after(group)
    return found + Drift(surplus=gone, repaired=gone)
