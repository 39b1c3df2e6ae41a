"""The embedded index: two LanceDB tables in a folder, written by one process and read by any number."""

import datetime as dt
import heapq
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any, Self

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lancedb.index import FTS, BTree

from encoders.encoder import DIMENSIONS, Vectors
from knowledge.index import Entry, Hit, Holding, IndexMissingError
from knowledge.lance_resident import RESIDENT, Flags, Ranked, Resident, Snapshot
from knowledge.lance_rows import WHOLE, chunks_of, opened, rows_of, table_name
from knowledge.lance_structures import NEIGHBOURS, PARTITIONS_SEARCHED, Structures
from knowledge.payload import unpack
from knowledge.schema import Chunk, Kind
from knowledge.visibility import Scopes, Visibility, literals

# Readers follow every commit; an older version serves only queries that run now, and a deletion is complete when it is gone.
_KEPT = dt.timedelta(minutes=1)
_KEYS_AT_ONCE = 1000
# Most of the best of all rows that are read for the best visible ones.
_WIDE = 4000
_ENTRY = [
    "chunk_id", "document_key", "collection", "version", "position", "content_hash", "metadata_hash", "access_hash",
    "closed_position", "withdrawn_at",
]  # fmt: skip
_HOLDING = ["collection", "document_key", "version", "superseded_at", "withdrawn_at", "expires_at", "closed_position"]
_SEARCH = {"search_text": FTS(with_position=False, stem=True, remove_stop_words=True), "document_key": BTree()}


class LanceIndex:
    """Both tables of one encoder; reads see a commit of any process at once."""

    def __init__(self, encoder: str, tables: dict[Kind, Any], database: Any, *, resident: int = 0) -> None:
        """Wrap open tables; use `create` or `open` instead. Of tables with up to `resident` chunks, searches read from memory."""
        self.encoder = encoder
        self._database = database
        self._tables = tables
        self._structures = {kind: Structures(table) for kind, table in tables.items()}
        self._scopes: dict[Kind, tuple[int, Scopes]] = {}
        words = {kind: _named(table, "search_text") for kind, table in tables.items()} if resident else {}
        self._residents = {kind: Resident(kind.value, tables[kind], name, most=resident) for kind, name in words.items()}
        self._lock = Lock()
        self._pool = ThreadPoolExecutor(2 * len(tables), thread_name_prefix="index")

    @classmethod
    def create(cls, folder: Path, encoder: str, *, resident: int = 0) -> Self:
        """Open the tables for writing, making those that are missing."""
        folder.mkdir(parents=True, exist_ok=True)
        database = lancedb.connect(folder, read_consistency_interval=dt.timedelta(0))
        tables = {}
        for kind in Kind:
            table = opened(database, kind, encoder)
            # A crash may have left a table with one of them, or none.
            for column, config in _SEARCH.items():
                if column not in _indexed(table):
                    table.create_index(column, config=config)
            tables[kind] = table
        return cls(encoder, tables, database, resident=resident)

    @classmethod
    def open(cls, folder: Path, encoder: str, *, resident: int = RESIDENT) -> Self:
        """Open the tables for reading; raise IndexMissingError where one is not there."""
        names = _table_names(folder)
        wanted = {kind: table_name(kind, encoder) for kind in Kind}
        found = {name.partition("_")[2] for name in names} - {encoder}
        if not set(wanted.values()) <= names:
            raise IndexMissingError(encoder, sorted(found))
        database = lancedb.connect(folder, read_consistency_interval=dt.timedelta(0))
        try:
            tables = {kind: database.open_table(name) for kind, name in wanted.items()}
        except ValueError as error:
            # The folder of a table is there a moment before the table is.
            raise IndexMissingError(encoder, sorted(found)) from error
        if any(not _indexed(table).issuperset(_SEARCH) for table in tables.values()):
            raise IndexMissingError(encoder, sorted(found))
        return cls(encoder, tables, database, resident=resident)

    def versions(self) -> dict[str, int]:
        """Return the version of each table by kind; it grows with every change."""
        return {kind.value: int(table.version) for kind, table in self._tables.items()}

    def refresh(self) -> None:
        """Follow what has changed before a query has to, and forget what was deleted."""
        for resident in self._residents.values():
            resident.look()

    def lexical(self, query: str, visible: Visibility, limit: int) -> list[Hit]:
        """Return the best visible chunks of both tables by BM25, best first."""

        def leg(kind: Kind) -> Ranked:
            rows = self._residents[kind].look() if kind in self._residents else None
            seen = rows.visible(visible) if rows is not None else None
            if rows is not None and seen is not None and (found := self._words(kind, query, rows, seen, visible, limit)) is not None:
                return found
            search = self._seen(self._search(kind, query), kind, visible).select(["payload", "_score"])
            # Without their vectors, which cost more than the search itself and are of use to reranking alone.
            read = search.limit(limit).to_arrow()
            return _ranked(read, read["_score"].to_pylist())

        return self._merged(leg, limit)

    def nearest(self, vector: Vectors, visible: Visibility, limit: int) -> list[Hit]:
        """Return the best visible chunks of both tables by cosine with a unit vector (384,), best first."""

        def leg(kind: Kind) -> Ranked:
            rows = self._residents[kind].look() if kind in self._residents else None
            if rows is not None and (seen := rows.visible(visible)) is not None:
                return rows.ranked(*rows.nearest(vector, seen, limit))
            search = self._tables[kind].search(vector, vector_column_name="vector").distance_type("cosine")
            # In a large table the graph is walked this widely, and distances are then taken from the vectors themselves.
            search = search.nprobes(PARTITIONS_SEARCHED).ef(max(NEIGHBOURS, 2 * limit)).refine_factor(1)
            read = self._seen(search, kind, visible).select(["payload", "_distance"]).limit(limit).to_arrow()
            # A chunk that waits for its vector is at no distance from anything.
            read = read.filter(pc.is_valid(read["_distance"]))
            return _ranked(read, [1.0 - distance for distance in read["_distance"].to_pylist()])

        return self._merged(leg, limit)

    def cosines(self, vector: Vectors, chunks: Sequence[Chunk]) -> dict[str, float]:
        """Return the cosines of these chunks with a unit vector (384,), by chunk id; those that wait for theirs are left out."""

        def leg(kind: Kind) -> dict[str, float]:
            found, names = dict[str, float](), [chunk.chunk_id for chunk in chunks if chunk.kind == kind]
            for some in (names[at : at + _KEYS_AT_ONCE] for at in range(0, len(names), _KEYS_AT_ONCE)):
                search = self._tables[kind].search().where(f"chunk_id IN ({literals(some)})")
                rows = search.select(["chunk_id", "vector"]).limit(None).to_arrow()
                rows = rows.filter(pc.is_valid(rows["vector"])).combine_chunks()
                stored = rows["vector"].combine_chunks().flatten().to_numpy().reshape(-1, DIMENSIONS)
                found.update(zip(rows["chunk_id"].to_pylist(), (stored @ vector).tolist(), strict=True))
            return found

        return {name: cosine for part in self._pool.map(leg, self._tables) for name, cosine in part.items()}

    def documents(self, kind: Kind, keys: Sequence[str], *, vectors: bool = True) -> dict[str, list[Chunk]]:  # noqa: ARG002 - they cost nothing here
        """Return every stored chunk of every version of the documents, by document key; vectors come with them either way."""
        found: dict[str, list[Chunk]] = {key: [] for key in keys}
        for first in range(0, len(keys), _KEYS_AT_ONCE):
            some = keys[first : first + _KEYS_AT_ONCE]
            rows = self._tables[kind].search().where(f"document_key IN ({literals(some)})").select(WHOLE).limit(None).to_arrow()
            for chunk in chunks_of(rows):
                found[chunk.document_key].append(chunk)
        return found

    def replace(self, kind: Kind, documents: Mapping[str, Sequence[Chunk]], positions: Mapping[str, int] | None = None) -> int:
        """Make these the only chunks of these documents in one commit; return the version that holds them.

        Documents of which the table holds a later change than `positions` says are left as they are.
        """
        table = self._tables[kind]
        if positions:
            later = self._later(table, positions)
            documents = {key: chunks for key, chunks in documents.items() if key not in later}
        if not documents:
            return int(table.version)
        scope = f"document_key IN ({literals(documents)})"
        rows = [chunk for chunks in documents.values() for chunk in chunks]
        if not rows:
            table.delete(scope)
            return int(table.version)
        merge = table.merge_insert("chunk_id").when_matched_update_all().when_not_matched_insert_all()
        _execute(merge.when_not_matched_by_source_delete(scope), rows)
        return int(table.version)

    def update(self, kind: Kind, chunks: Sequence[Chunk]) -> int:
        """Overwrite chunks that are there and hold no later change, by chunk id, in one commit. Return the version."""
        table = self._tables[kind]
        if chunks:
            # What was read before a later change came does not overwrite it.
            merge = table.merge_insert("chunk_id").when_matched_update_all(where="target.position <= source.position")
            _execute(merge, chunks)
        return int(table.version)

    def without_vector(self, kind: Kind, limit: int) -> list[Chunk]:
        """Return chunks that wait for their vector, those of the earliest changes first."""
        table = self._tables[kind]
        waiting = table.search().where("vector IS NULL").select(["chunk_id", "position"]).limit(None).to_arrow()
        first = waiting.sort_by([("position", "ascending"), ("chunk_id", "ascending")])["chunk_id"].slice(0, limit).to_pylist()
        found: list[Chunk] = []
        for some in (first[at : at + _KEYS_AT_ONCE] for at in range(0, len(first), _KEYS_AT_ONCE)):
            rows = table.search().where(f"chunk_id IN ({literals(some)})").select(WHOLE).limit(None).to_arrow()
            found += [chunk for chunk in chunks_of(rows) if chunk.vector is None]
        return sorted(found, key=lambda chunk: (chunk.position, chunk.chunk_id))

    def inventory(self, kind: Kind, collection: str) -> list[Entry]:
        """Return every stored chunk of a collection without its text, in no order."""
        scope = f"collection = {literals([collection])}"
        rows = self._tables[kind].search().where(scope).select(_ENTRY).limit(None).to_arrow().to_pylist()
        waiting = self._tables[kind].search().where(f"{scope} AND vector IS NULL").select(["chunk_id"]).limit(None).to_arrow()
        missing = set(waiting["chunk_id"].to_pylist())
        return [
            Entry(
                **{name: row[name] for name in _ENTRY[:-2]},
                embedded=row["chunk_id"] not in missing,
                closed=row["closed_position"] is not None,
                withdrawn=row["withdrawn_at"] is not None,
            )
            for row in rows
        ]

    def _later(self, table: Any, positions: Mapping[str, int]) -> set[str]:
        later, keys = set[str](), list(positions)
        for first in range(0, len(keys), _KEYS_AT_ONCE):
            scope = f"document_key IN ({literals(keys[first : first + _KEYS_AT_ONCE])})"
            rows = table.search().where(scope).select(["document_key", "position", "closed_position"]).limit(None).to_arrow().to_pylist()
            # What ended at a place is fenced by that place.
            later |= {
                row["document_key"] for row in rows if max(row["position"], row["closed_position"] or 0) > positions[row["document_key"]]
            }
        return later

    def tidy(self) -> None:
        """Fold recent changes into the search structures and drop table versions that no reader needs."""
        for table in self._tables.values():
            table.optimize(cleanup_older_than=_KEPT)
        for structures in self._structures.values():
            structures.tend()

    def settle(self, seconds: float) -> None:
        """Wait until the search structures that `tidy` began are ready, for at most that long each."""
        for structures in self._structures.values():
            structures.wait(seconds)

    def fragments(self) -> dict[str, int]:
        """Return the number of fragments of each table by kind; every commit adds some, `tidy` joins them."""
        return {kind.value: int(table.stats()["fragment_stats"]["num_fragments"]) for kind, table in self._tables.items()}

    def holdings(self) -> dict[str, Holding]:
        """Return what each collection holds, by name."""
        now, chunks = dt.datetime.now(dt.UTC), Counter[str]()
        found: dict[str, dict[str, set[tuple[str, str]]]] = {}
        for table in self._tables.values():
            for row in table.search().select(_HOLDING).limit(None).to_arrow().to_pylist():
                chunks[row["collection"]] += 1
                if row["closed_position"] is None:
                    states = found.setdefault(
                        row["collection"], {name: set() for name in ("current", "superseded", "expired", "withdrawn")}
                    )
                    states[_state(row, now)].add((row["document_key"], row["version"]))
        return {
            name: Holding(
                documents=len({key for key, _ in found[name]["current"]}) if name in found else 0,
                chunks=count,
                **{state: len(found[name][state]) if name in found else 0 for state in ("superseded", "expired", "withdrawn")},
            )
            for name, count in chunks.items()
        }

    def _seen(self, search: Any, kind: Kind, visible: Visibility) -> Any:
        return search.where(visible.sql(self._known(kind)), prefilter=True)

    def _known(self, kind: Kind) -> Scopes:
        """Return the scopes of the table, read again only when it has changed."""
        table = self._tables[kind]
        version = int(table.version)
        with self._lock:
            known = self._scopes.get(kind)
            if known is None or known[0] != version:
                column = table.search().select(["scope"]).limit(None).to_arrow()["scope"]
                known = (version, Scopes(column.unique().to_pylist()))
                self._scopes[kind] = known
        return known[1]

    def _search(self, kind: Kind, query: str) -> Any:
        return self._tables[kind].search(query, query_type="fts", fts_columns="search_text")

    def _words(self, kind: Kind, query: str, rows: Snapshot, seen: Flags, visible: Visibility, limit: int) -> Ranked | None:
        """Return the leg of words over resident rows; None where the table has moved on meanwhile."""
        # In the search structure scores do not depend on who asks. Where enough of all rows are visible, the best of all hold the best
        # visible ones, and asking without the predicate takes half the time. Rows that are not folded in yet are scored among themselves.
        most = _enough(rows, int(seen.sum()), limit)
        if most and not rows.unindexed:
            read = self._search(kind, query).select(["_score"]).with_row_id(True).limit(most).to_arrow()
            places = rows.places(read["_rowid"].to_numpy().astype(np.int64))
            if places is None:
                return None
            kept = seen[places]
            if kept.sum() >= limit or len(places) < most:
                return rows.ranked(places[kept][:limit], read["_score"].to_numpy()[kept][:limit])
        search = self._search(kind, query).where(visible.sql(rows.scopes()), prefilter=True).select(["_score"])
        read = search.with_row_id(True).limit(limit).to_arrow()
        places = rows.places(read["_rowid"].to_numpy().astype(np.int64))
        return None if places is None else rows.ranked(places, read["_score"].to_numpy())

    def _merged(self, leg: Callable[[Kind], Ranked], limit: int) -> list[Hit]:
        """Run a leg on both tables at once and merge what they found; ties go by chunk id."""
        parts = list(self._pool.map(leg, self._tables))
        # What ties with the last is read too, so that chunk ids decide about it.
        least = min(heapq.nlargest(limit, (score for part in parts for score in part.scores)), default=0.0)
        hits = [hit for part in parts for hit in part.hits(least)]
        return sorted(hits, key=lambda hit: (-hit.score, hit.chunk.chunk_id))[:limit]


def _ranked(read: pa.Table, scores: Sequence[float]) -> Ranked:
    payloads = read["payload"].to_pylist()
    return Ranked(scores, lambda number: unpack(payloads[number]))


def _enough(rows: Snapshot, visible: int, limit: int) -> int:
    """Return how many of the best of all rows hold `limit` visible ones, unless words and access go together; 0 for too many."""
    wanted = limit + 2 * limit * rows.count // max(visible, 1)
    return wanted if wanted <= _WIDE else 0


def _state(row: dict[str, Any], now: dt.datetime) -> str:
    if row["withdrawn_at"] is not None:
        return "withdrawn"
    if row["expires_at"] is not None and row["expires_at"] <= now:
        return "expired"
    return "superseded" if row["superseded_at"] is not None and row["superseded_at"] <= now else "current"


def _execute(merge: Any, chunks: Sequence[Chunk]) -> None:
    # A chunk that waits for its vector has none, which is an error unless it is asked for.
    merge.execute(rows_of(chunks), on_bad_vectors="null")


def _indexed(table: Any) -> set[str]:
    return {column for index in table.list_indices() for column in index.columns}


def _named(table: Any, column: str) -> str:
    return next(str(index.name) for index in table.list_indices() if column in index.columns)


def _table_names(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.lance")}
