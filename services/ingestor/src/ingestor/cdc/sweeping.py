"""Takes out of the index, a bounded number at a time, what no query sees any more."""

import time
from dataclasses import replace

from ingestor.cdc.freshness import EXPIRED
from ingestor.cdc.rows import Rows
from ingestor.library import Library

AT_ONCE = 200
_DAY_MS = 86_400_000
# As long as the stream keeps messages, a replay could bring a deleted row back.
_TOMBSTONE_DAYS = 8


def sweep(rows: Rows, library: Library) -> list[str]:
    """Remove expired documents, old closed copies and old tombstones; return the keys of the documents."""
    now_ms = time.time_ns() // 1_000_000
    with rows.transaction():
        expired = rows.expired(now_ms, AT_ONCE)
        if expired:
            library.apply([], {row.document_key: row.position for row in expired})
        for row in expired:
            EXPIRED.labels(collection=row.collection).inc()
            rows.put([replace(row, hash="", chunks=0)])
        old = rows.past_history(now_ms, AT_ONCE)
        if old:
            library.purge(old)
            rows.forget_history(old)
        rows.forget_tombstones(now_ms - _TOMBSTONE_DAYS * _DAY_MS, AT_ONCE)
    return [row.document_key for row in expired]
