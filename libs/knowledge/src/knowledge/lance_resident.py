"""What searches of a LanceDB table read, kept in memory: vectors, the predicate's columns and what a hit shows, at the latest version."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock, Thread
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from encoders.encoder import DIMENSIONS, Vectors
from knowledge.index import Hit
from knowledge.payload import unpack_later
from knowledge.schema import Chunk, metadata_pairs
from knowledge.visibility import Scopes, Visibility, micros

Places = NDArray[np.int64]
Flags = NDArray[np.bool_]
_COLUMNS = ["chunk_id", "scope", "over_at", "effective_from", "metadata", "vector", "payload"]
# A table of so many rows is read while a query waits for it; a larger one beside the queries, which the engine answers meanwhile.
_SMALL = 10_000
# New rows are taken one by one up to this share of all; of more, the table is read again.
_FEW, _SHARE = 1000, 0.1
_ROOM = 1.25
# Taking single rows costs more than reading past them.
_GATHERED = 0.15
_ID = "_rowid"
# Chunks of a table that a reader holds unless it is told otherwise; a hundred thousand take some 300 MB.
RESIDENT = 250_000


class _Codes:
    """Numbers for values that repeat; only ever grows."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.numbers: dict[Any, int] = {}

    def of(self, value: Any) -> int:
        if value not in self.numbers:
            self.values.append(value)
            self.numbers[value] = len(self.values) - 1
        return self.numbers[value]


class _Store:
    """Columns with room for more rows, in the order of the engine's own row numbers, which it never gives twice."""

    def __init__(self, room: int) -> None:
        self.ids = np.zeros(room, dtype=np.int64)
        self.over = np.zeros(room, dtype=np.int64)
        self.since = np.zeros(room, dtype=np.int64)
        self.scope = np.zeros(room, dtype=np.int32)
        self.metadata = np.zeros(room, dtype=np.int32)
        self.embedded = np.zeros(room, dtype=np.bool_)
        self.matrix = np.zeros((room, DIMENSIONS), dtype=np.float32)
        self.names: list[str] = []
        self.payloads: list[bytes | None] = []
        self.scopes, self.pairs = _Codes(), _Codes()
        self.named = Scopes(())

    def vector(self, place: int) -> list[float] | None:
        """Return a row's vector, for reranking."""
        numbers: list[float] = self.matrix[place].tolist()
        return numbers if self.embedded[place] else None

    def add(self, first: int, read: pa.Table) -> None:
        """Put rows behind the `first` ones; whoever reads those is not disturbed."""
        last, named = first + read.num_rows, len(self.scopes.values)
        self.ids[first:last] = read[_ID].to_numpy()
        self.over[first:last] = read["over_at"].to_numpy()
        self.since[first:last] = read["effective_from"].cast(pa.int64()).to_numpy()
        self.scope[first:last] = [self.scopes.of(value) for value in read["scope"].to_pylist()]
        self.metadata[first:last] = [self.pairs.of(tuple(value)) for value in read["metadata"].to_pylist()]
        at = first
        for part in read["vector"].chunks:
            there = part.is_valid().to_numpy(zero_copy_only=False)
            self.embedded[at : at + len(part)] = there
            self.matrix[at : at + len(part)][there] = part.drop_null().flatten().to_numpy().reshape(-1, DIMENSIONS)
            at += len(part)
        self.names[first:], self.payloads[first:] = read["chunk_id"].to_pylist(), read["payload"].to_pylist()
        if len(self.scopes.values) > named:
            self.named = Scopes(self.scopes.values)


@dataclass(frozen=True)
class Ranked:
    """What a leg found in one table: scores, and what makes the chunks of those that count, by number; None where one has gone."""

    scores: Sequence[float]
    chunk: Callable[[int], Chunk | None]

    def hits(self, least: float) -> list[Hit]:
        """Return those that score at least that."""
        chunks = ((score, self.chunk(number)) for number, score in enumerate(self.scores) if score >= least)
        return [Hit(chunk, score) for score, chunk in chunks if chunk is not None]


@dataclass(frozen=True)
class Snapshot:
    """The rows of one version. `at` below are places in its columns."""

    kind: str
    version: int
    count: int
    # Rows that are in the table, not deleted or replaced.
    living: Flags
    # Rows that are not in the search structure of words yet.
    unindexed: int
    store: _Store

    def visible(self, who: Visibility) -> Flags | None:
        """Return which rows the caller may see (count,); None for a question about the past of a source or a pinned version."""
        if who.version or not set(who.positions).isdisjoint(who.collections):
            return None
        store, now = self.store, micros(who.at)
        open_to = np.zeros(len(store.scopes.values), dtype=np.bool_)
        open_to[[store.scopes.numbers[name] for name in store.named.open_to(who)]] = True
        seen: Flags = (
            self.living & open_to[store.scope[: self.count]] & (store.over[: self.count] > now) & (store.since[: self.count] <= now)
        )
        if who.filters:
            wanted = set(metadata_pairs(dict(who.filters)))
            fits = np.array([wanted.issubset(pairs) for pairs in store.pairs.values], dtype=np.bool_)
            seen &= fits[store.metadata[: self.count]]
        return seen

    def nearest(self, vector: Vectors, seen: Flags, limit: int) -> tuple[Places, Vectors]:
        """Return places and cosines of the best visible rows for a unit vector (384,), in no order, ties with the last included."""
        places = np.flatnonzero(seen & self.store.embedded[: self.count])
        if len(places) < _GATHERED * self.count:
            cosines = self.store.matrix[places] @ vector
        else:
            cosines = (self.store.matrix[: self.count] @ vector)[places]
        if len(places) > limit:
            least = np.partition(cosines, len(places) - limit)[len(places) - limit]
            # Where thousands are alike, no order of chunk ids is worth reading them.
            best = np.flatnonzero(cosines >= least)[: 4 * limit]
            places, cosines = places[best], cosines[best]
        # The last digits depend on where a row is; the same text twice must be a tie, about which chunk ids decide.
        return places, cosines.round(6)

    def scopes(self) -> Scopes:
        """Return which sets of labels the rows have."""
        return self.store.named

    def places(self, ids: Places) -> Places | None:
        """Return where rows are by the engine's numbers; None where one is not known yet."""
        if not self.count:
            return None if len(ids) else ids
        found = np.minimum(np.searchsorted(self.store.ids[: self.count], ids), self.count - 1)
        return found if bool((self.store.ids[found] == ids).all()) else None

    def ranked(self, places: Places, scores: Vectors) -> Ranked:
        """Return the rows at places as hits; a row that was deleted a moment ago is none."""
        store, at = self.store, places.tolist()

        def chunk(number: int) -> Chunk | None:
            place = at[number]
            # Held from now on, whatever happens to the row.
            payload = store.payloads[place]
            return None if payload is None else unpack_later(store.names[place], self.kind, lambda: payload, lambda: store.vector(place))

        return Ranked(scores.tolist(), chunk)


class Resident:
    """Follows one table; what was deleted there is forgotten here with the next look."""

    def __init__(self, kind: str, table: Any, words: str, *, most: int) -> None:
        """Hold up to `most` rows of the table of one kind, whose search structure of words has the name `words`; nothing is read yet."""
        self._kind, self._table, self._words, self._most = kind, table, words, most
        self._lock = Lock()
        self._loading: Thread | None = None
        self._known: Snapshot | None = None

    def look(self) -> Snapshot | None:
        """Return the rows as they are now; None where there are too many, or while they are being read."""
        version = int(self._table.version)
        known = self._known
        if known is not None and known.version == version:
            return known
        if self._table.count_rows() > self._most:
            self._known = None
            return None
        with self._lock:
            version = int(self._table.version)
            if self._known is not None and self._known.version == version:
                return self._known
            if self._loading is not None and self._loading.is_alive():
                return None
            return self._advanced(version)

    def wait(self, seconds: float) -> None:
        """Wait until what is being read is there, for at most that long."""
        if self._loading is not None:
            self._loading.join(seconds)

    def _advanced(self, version: int) -> Snapshot | None:
        if self._known is not None and self._known.version < version and (grown := self._grown(self._known, version)) is not None:
            self._known = grown
            return grown
        if self._table.count_rows() <= _SMALL:
            self._load(version)
            return self._known
        # A daemon: what the end of the process interrupts is lost with it anyway.
        self._loading = Thread(target=self._load, args=(version,), name="resident", daemon=True)
        self._loading.start()
        return None

    def _grown(self, known: Snapshot, version: int) -> Snapshot | None:
        """Return the snapshot with what has come since and without what has gone; None where too much has, or a row goes meanwhile."""
        store, before, now = known.store, known.store.ids[: known.count], self._ids()
        fresh = np.setdiff1d(now, before, assume_unique=True)
        room = len(store.ids) - known.count
        # Numbers only grow, so that what is new comes behind everything else.
        if len(fresh) > min(room, max(_FEW, int(_SHARE * known.count))) or (len(fresh) and known.count and fresh[0] < before[-1]):
            return None
        if len(fresh):
            read = self._table.take_row_ids(fresh.tolist()).select(_COLUMNS).with_row_id().to_arrow().sort_by(_ID)
            if not np.array_equal(read[_ID].to_numpy().astype(np.int64), fresh):
                return None
            store.add(known.count, read)
        living = np.isin(store.ids[: known.count + len(fresh)], now, assume_unique=True)
        for place in np.flatnonzero(known.living & ~living[: known.count]):
            # Deleted is gone from memory too; a search that runs now passes it over.
            store.payloads[place], store.matrix[place] = None, 0.0
        return Snapshot(self._kind, version, len(living), living, self._unindexed(), store)

    def _load(self, version: int) -> None:
        read = self._table.search().select(_COLUMNS).with_row_id(True).limit(None).to_arrow().sort_by(_ID)
        store = _Store(int(_ROOM * read.num_rows) + _FEW)
        store.add(0, read)
        self._known = Snapshot(self._kind, version, read.num_rows, np.ones(read.num_rows, dtype=np.bool_), self._unindexed(), store)

    def _ids(self) -> Places:
        found: Places = np.sort(self._table.search().select([_ID]).limit(None).to_arrow()[_ID].to_numpy().astype(np.int64))
        return found

    def _unindexed(self) -> int:
        return int(self._table.index_stats(self._words).num_unindexed_rows)
