"""Compares a source that can be read with the ledger, by hashes of buckets; only the rows of buckets that differ are read."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from functools import partial
from typing import Any

from chassis.errors import ServiceError, UnavailableError
from chassis.logging import get_logger
from ingestor.cdc.applying import Applier
from ingestor.cdc.drift import Drift
from ingestor.cdc.envelopes import Change, PoisonError, row_change
from ingestor.cdc.groups import Group, Reporter
from ingestor.cdc.health import RowReader, SourceRows
from ingestor.cdc.mapping import Table
from ingestor.cdc.rows import Rows
from ingestor.fingerprints import BUCKETS, Fingerprint, bucket, row_hash

log = get_logger("ingestor")
_PAGE = 500
_LONGEST_SECONDS = 3600.0
_BEHIND_SECONDS = 60.0


class SourceReading:
    """Holds the ledger against the source itself; what it writes goes through the thread of the ledger, a page at a time."""

    def __init__(
        self,
        rows: Rows,
        applier: Applier,
        reporter: Reporter,
        on_worker: Callable[[Callable[[], Any]], Awaitable[Any]],
        after: Callable[[Group], Awaitable[None]],
        reached: Callable[[str, int, float], Awaitable[int]],
    ) -> None:
        """Compare `rows`; `reached` waits until a collection is searchable up to a place and raises DeadlineError."""
        self._rows, self._applier, self._reporter = rows, applier, reporter
        self._on_worker, self._after, self._reached = on_worker, after, reached

    async def compare(self, tables: Sequence[Table], reader: RowReader | None) -> tuple[Drift, list[ServiceError]]:
        """Compare each table of a source that has a reader; return what was found, and why a table could not be compared."""
        found, errors = Drift(), list[ServiceError]()
        if reader is None:
            return found, errors
        for table in tables:
            try:
                found += await self._compare(table, reader)
            except ServiceError as error:
                log.warning("source_not_compared", source=table.source.name, table=table.name, code=error.code, error=str(error))
                errors.append(error)
        return found, errors

    async def _compare(self, table: Table, reader: RowReader) -> Drift:
        """Take over what differs in the source, remove what it no longer has; raise a ServiceError where it cannot be read.

        Changes that are still on their way are waited for, so that only what went wrong counts; what changes meanwhile has a
        later place than what was read, and stays.
        """
        try:
            async with asyncio.timeout(_LONGEST_SECONDS), reader.open(table.name, table.mapping.key) as source:
                await self._reached(table.collection.name, source.settled, _BEHIND_SECONDS)
                theirs, ours = await source.buckets(), await self._fingerprints(table)
                differing = {number for number in theirs.keys() | ours.keys() if theirs.get(number) != ours.get(number)}
                found = Drift(buckets=BUCKETS, differing=len(differing))
                if differing:
                    found += await self._mend(table, source, differing)
                await self._after(await self._on_worker(partial(self._applier.end_rows, table, source.position)))
                return found
        except TimeoutError as error:
            message = f"source {table.source.name!r}: {table.name!r} was not compared within {_LONGEST_SECONDS} s"
            raise UnavailableError(message, code="source_unavailable") from error

    async def _mend(self, table: Table, source: SourceRows, differing: set[int]) -> Drift:
        await self._on_worker(self._rows.forget_seen)
        found, page, read_ms = Drift(), list[Change](), time.time_ns() // 1_000_000
        async with aclosing(source.rows(differing)) as rows:
            async for values in rows:
                with suppress(PoisonError):
                    # A row without its key is no document; its event was a dead letter.
                    page.append(row_change(table, values, source.position, read_ms))
                if len(page) >= _PAGE:
                    found += await self._hear(page)
                    page = []
        found += await self._hear(page)
        found += await self._drop(table, source.position, differing)
        await self._on_worker(self._rows.forget_seen)
        return found

    async def _hear(self, page: list[Change]) -> Drift:
        group, missing, stale = await self._on_worker(partial(self._applier.hear_rows, page, self._reporter))
        await self._after(group)
        return Drift(missing=missing, stale=stale, repaired=missing + stale, embedded=sum(map(len, group.applied.waiting.values())))

    async def _drop(self, table: Table, place: int, differing: set[int]) -> Drift:
        """Remove rows of the buckets that were read, where the source did not have them."""
        total, last = 0, ""
        while page := await self._page(table, last):
            last = page[-1][0]
            keys = [key for key, number, _ in page if number in differing]
            group, gone = await self._on_worker(partial(self._applier.drop_unseen, table, keys, place, self._reporter))
            await self._after(group)
            total += gone
        return Drift(surplus=total, repaired=total)

    async def _fingerprints(self, table: Table) -> Mapping[int, Fingerprint]:
        sums: dict[int, Fingerprint] = {}
        last = ""
        while page := await self._page(table, last):
            last = page[-1][0]
            for _key, number, value in page:
                count, total = sums.get(number, (0, 0))
                sums[number] = (count + 1, total + value)
        return sums

    async def _page(self, table: Table, after: str) -> list[tuple[str, int, int]]:
        """Return key, bucket and hash of some rows of the ledger behind a key."""

        def read() -> list[tuple[str, int, int]]:
            rows = self._rows.page(table.source.name, table.name, after, _PAGE)
            return [(row.key, bucket(json.loads(row.key)), row_hash(row.content, json_columns=table.json_columns)) for row in rows]

        found: list[tuple[str, int, int]] = await self._on_worker(read)
        return found
