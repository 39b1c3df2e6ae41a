"""Tells an event that cannot be written from an index that cannot be written to."""

import sqlite3
from collections.abc import Awaitable, Callable

from chassis.errors import ServiceError
from chassis.logging import get_logger
from ingestor.cdc.rows import Rows
from ingestor.library import Library
from knowledge.index import Index
from knowledge.schema import Kind

log = get_logger("ingestor")
_INFRASTRUCTURE = (OSError, RuntimeError, sqlite3.OperationalError)


async def is_their_own(error: Exception, writable: Callable[[], Awaitable[bool]]) -> bool:
    """Return whether messages made a write fail themselves; what holds the index or the ledger may fail for everything.

    `writable` tells whether another write succeeds now.
    """
    if isinstance(error, ServiceError):
        return not error.retryable
    if not isinstance(error, _INFRASTRUCTURE) or isinstance(error, RecursionError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    # The embedded engine has one kind of error for all that goes wrong, with a row or with its disk.
    try:
        return await writable()
    except Exception as also:  # noqa: BLE001 - whatever it is, nothing else can be written either
        log.warning("index_not_writable", error=str(also))
        return False


def takes_writes(rows: Rows, index: Index, library: Library) -> bool:
    """Write a stored chunk again as it is; return whether there was one, raise what the index raises."""
    key = rows.some_document()
    with library.writing:
        chunks = index.documents(Kind.FLUID, [key])[key][:1] if key else []
        if chunks:
            index.update(Kind.FLUID, chunks)
    return bool(chunks)
