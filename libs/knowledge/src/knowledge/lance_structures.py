"""Search structures of large LanceDB tables: built beside the queries once scanning everything would be too slow."""

import time
from threading import Lock, Thread
from typing import Any

from lancedb.index import Bitmap, BTree, IvfHnswSq

# Below this many rows a scan is fast enough, and exact.
LARGE = 20_000
NEIGHBOURS = 200
PARTITIONS_SEARCHED = 64
_ROWS_PER_PARTITION = 500_000
# Every folding of recent changes adds a part to the graph; this many are made one again, not more often than that.
_MOST_PARTS = 32
_REBUILD_SECONDS = 600.0
_FILTERED = {
    **{name: Bitmap() for name in ("collection", "scope")},
    **{name: BTree() for name in ("effective_from", "over_at", "chunk_id")},
}


class Structures:
    """Builds what one table needs, in the background, one building at a time."""

    def __init__(self, table: Any) -> None:
        """Look after `table`."""
        self._table = table
        self._lock = Lock()
        self._building: Thread | None = None
        self._built_at = 0.0

    def tend(self) -> None:
        """Begin to build what is missing or has fallen apart, and return at once."""
        with self._lock:
            busy = self._building is not None and self._building.is_alive()
            if busy or self._table.count_rows("vector IS NOT NULL") < LARGE or not self._due():
                return
            self._built_at = time.monotonic()
            # A daemon: what a crash or the end of the process leaves half built is not used, and begun again.
            self._building = Thread(target=self._build, name="index-building", daemon=True)
            self._building.start()

    def wait(self, seconds: float) -> None:
        """Wait until what is being built is ready, for at most that long."""
        if self._building is not None:
            self._building.join(seconds)

    def _due(self) -> bool:
        indices = {column: index.name for index in self._table.list_indices() for column in index.columns}
        if not indices.keys() >= {"vector", *_FILTERED}:
            return True
        parts = int(self._table.index_stats(indices["vector"]).num_indices or 1)
        return parts > _MOST_PARTS and time.monotonic() - self._built_at > _REBUILD_SECONDS

    def _build(self) -> None:
        there = {column for index in self._table.list_indices() for column in index.columns}
        for column, config in _FILTERED.items():
            if column not in there:
                self._table.create_index(column, config=config)
        partitions = max(1, self._table.count_rows() // _ROWS_PER_PARTITION)
        graph = IvfHnswSq(distance_type="cosine", num_partitions=partitions, ef_construction=150)
        self._table.create_index("vector", config=graph)
