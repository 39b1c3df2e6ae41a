"""The index on OpenSearch: one for each kind and encoder, found by an alias; written by one process, read by any number."""

import datetime as dt
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Self

from chassis.errors import FailedPreconditionError, InvalidArgumentError
from encoders.encoder import Vectors
from knowledge import opensearch_queries as queries
from knowledge.index import Entry, Hit, Holding, IndexMissingError
from knowledge.opensearch_client import Connection, NotThereError, TooManyWordsError
from knowledge.opensearch_last_read import Held, Stored
from knowledge.opensearch_templates import NEVER, physical, prefix, read_alias, write_alias
from knowledge.opensearch_writing import COMMITS, Writer, groups, pages, row_id
from knowledge.schema import Chunk, Kind
from knowledge.visibility import Visibility

_KEYS_AT_ONCE = 1000
_PAGE = 2000
# A change that comes this long after the deletion of its document is the source's beginning anew.
_DELETIONS_KEPT_SECONDS = 7 * 24 * 3600
_ENTRY = [
    "chunk_id", "document_key", "collection", "version", "position", "content_hash", "metadata_hash", "access_hash",
    "embedded", "closed_position", "withdrawn_at",
]  # fmt: skip


class OpenSearchIndex:
    """Both indices of one encoder."""

    def __init__(self, connection: Connection, encoder: str, read: Mapping[Kind, str], write: Mapping[Kind, str]) -> None:
        """Search and write under these aliases, which must be there; use `create` or `open` instead."""
        self.encoder = encoder
        self._connection = connection
        self._read = dict(read)
        self._all = ",".join(self._read.values())
        self._seen: tuple[float, dict[str, int]] = (0.0, {})
        self._writers = {kind: Writer(connection, alias) for kind, alias in write.items()}

    @classmethod
    def create(cls, connection: Connection, encoder: str) -> Self:
        """Open for writing, making what is missing; raise FailedPreconditionError before `strata knowledge init` was run."""
        there = aliases(connection)
        for kind in Kind:
            if write_alias(kind, encoder) not in there:
                _make(connection, kind, encoder)
        return cls._opened(connection, encoder)

    @classmethod
    def open(cls, connection: Connection, encoder: str) -> Self:
        """Open for reading; raise IndexMissingError where one is not there."""
        there = aliases(connection)
        if not all(read_alias(kind, encoder) in there for kind in Kind):
            raise IndexMissingError(encoder, sorted(encoders(there) - {encoder}))
        return cls._opened(connection, encoder)

    @classmethod
    def _opened(cls, connection: Connection, encoder: str) -> Self:
        read = {kind: read_alias(kind, encoder) for kind in Kind}
        return cls(connection, encoder, read, {kind: write_alias(kind, encoder) for kind in Kind})

    def versions(self) -> dict[str, int]:
        """Return the number of the latest visible commit by kind; it grows with every change, across generations too."""
        body = {"docs": [{"_index": alias, "_id": COMMITS, "_source": ["position"]} for alias in self._read.values()]}
        asked, rows = time.monotonic(), self._connection.call("POST", "/_mget", body, realtime=False)["docs"]
        found = {kind.value: int(row["_source"]["position"]) if row.get("found") else 0 for kind, row in zip(self._read, rows, strict=True)}
        self._seen = (asked, found)
        return found

    def versions_before(self, seconds: float) -> dict[str, int]:
        """Return versions that were asked for at most so long ago; what is searched now is at least these."""
        asked, found = self._seen
        return dict(found) if found and time.monotonic() - asked <= seconds else self.versions()

    def lexical(self, query: str, visible: Visibility, limit: int) -> list[Hit]:
        """Return the best visible chunks of both indices by BM25, best first."""
        try:
            (found,) = self._ranked(queries.lexical(query, visible, limit))
        except TooManyWordsError:
            (found,) = self._ranked(queries.lexical(query[: queries.MOST_CHARACTERS], visible, limit))
        return _by_words(found)

    def nearest(self, vector: Vectors, visible: Visibility, limit: int) -> list[Hit]:
        """Return the best visible chunks of both indices by cosine with a unit vector (384,), best first."""
        return _by_cosine(*self._ranked(queries.nearest(vector, visible, limit)))

    def both(self, query: str, vector: Vectors, visible: Visibility, limit: int) -> tuple[list[Hit], list[Hit]]:
        """Return what `lexical` and `nearest` would, by one request."""
        near = queries.nearest(vector, visible, limit)
        try:
            words, vectors = self._ranked(queries.lexical(query, visible, limit), near)
        except TooManyWordsError:
            shorter = queries.lexical(query[: queries.MOST_CHARACTERS], visible, limit)
            words, vectors = self._ranked(shorter, near)
        return _by_words(words), _by_cosine(vectors)

    def cosines(self, vector: Vectors, chunks: Sequence[Chunk]) -> dict[str, float]:
        """Return the cosines of these chunks with a unit vector (384,), by chunk id; those that wait for theirs are left out."""
        found = dict[str, float]()
        for first in range(0, len(chunks), _KEYS_AT_ONCE):
            body = queries.cosines(vector, [chunk.chunk_id for chunk in chunks[first : first + _KEYS_AT_ONCE]])
            answer = self._connection.search(self._all, body)
            found |= {hit["sort"][1]: queries.cosine(hit["sort"][0]) for hit in answer["hits"]["hits"]}
        return found

    def documents(self, kind: Kind, keys: Sequence[str], *, vectors: bool = True) -> dict[str, list[Chunk]]:
        """Return every stored chunk of every version of the documents, by document key.

        A vector costs ten times what the rest of its row does; without `vectors` an empty list says that there is one.
        """
        found: dict[str, list[Chunk]] = {key: [] for key in keys}
        held, last_read = {key: Held() for key in keys}, self._writers[kind].last_read
        begun = last_read.begin()
        for first in range(0, len(keys), _KEYS_AT_ONCE):
            query = {"bool": {"filter": [{"terms": {"document_key": list(keys[first : first + _KEYS_AT_ONCE])}}]}}
            for row in self._rows(kind, query, **(queries.WITH_VECTOR if vectors else queries.WITHOUT_VECTOR)):
                key, name, position = (row["fields"][column][0] for column in queries.PLACED)
                held[key].rows[row_id(name)] = Stored(row["_version"], position)
                found[key] += queries.chunks_of(row)
        # What the writer would ask for before it changes these documents.
        last_read.keep(begun, held, again=vectors)
        return found

    def replace(self, kind: Kind, documents: Mapping[str, Sequence[Chunk]], positions: Mapping[str, int] | None = None) -> int:
        """Make these the only chunks of these documents in one commit; return the version that holds them.

        Documents of which the index holds a later change than `positions` says, a deletion included, are left as they are.
        """
        return self._writers[kind].replace(documents, positions)

    def update(self, kind: Kind, chunks: Sequence[Chunk]) -> int:
        """Overwrite chunks that are there and hold no later change, by chunk id, in one commit. Return the version."""
        return self._writers[kind].update(chunks)

    def without_vector(self, kind: Kind, limit: int) -> list[Chunk]:
        """Return chunks that wait for their vector, those of the earliest changes first."""
        body = {
            "size": min(limit, queries.LARGEST_PAGE),
            "query": {"bool": {"filter": [{"term": {"embedded": False}}]}},
            "_source": queries.WHOLE,
            "sort": [{"position": "asc"}, {"chunk_id": "asc"}],
            "track_total_hits": False,
        }
        found = self._connection.search(self._read[kind], body)
        return [queries.chunk_of(row["_source"]) for row in found["hits"]["hits"]]

    def inventory(self, kind: Kind, collection: str) -> list[Entry]:
        """Return every stored chunk of a collection without its text, as of one moment, in no order."""
        seconds = self._connection.settings.write_seconds
        view = self._connection.call("POST", f"/{self._read[kind]}/_search/point_in_time", keep_alive="1m", seconds=seconds)["pit_id"]
        body = {
            "pit": {"id": view, "keep_alive": "1m"},
            "size": queries.LARGEST_PAGE,
            "query": {"bool": {"filter": [{"term": {"collection": collection}}]}},
            "sort": [{"chunk_id": "asc"}],
            "_source": False,
            "docvalue_fields": _ENTRY,
            "track_total_hits": False,
        }
        try:
            return [_entry(row["fields"]) for row in pages(self._connection, "", body)]
        finally:
            self._connection.call("DELETE", "/_search/point_in_time", {"pit_id": [view]}, seconds=seconds)

    def tidy(self) -> None:
        """Forget deletions that are too long ago to matter; OpenSearch folds changes into its structures by itself."""
        for writer in self._writers.values():
            writer.forget_deletions(time.time_ns() // 1000 - _DELETIONS_KEPT_SECONDS * 1_000_000)

    def holdings(self) -> dict[str, Holding]:
        """Return what each collection holds, by name; exact, however much it is."""
        chunks, counts = Counter[str](), {state: Counter[str]() for state in queries.STATES}
        seconds = self._connection.settings.write_seconds
        for alias in self._read.values():
            every = {"terms": {"field": "collection", "size": queries.LARGEST_PAGE}}
            answer = self._connection.search(alias, {"size": 0, "aggs": {"every": every}}, seconds=seconds)
            chunks.update({bucket["key"]: bucket["doc_count"] for bucket in answer["aggregations"]["every"]["buckets"]})
            for state, condition in queries.states(dt.datetime.now(dt.UTC)).items():
                names = ("collection", "document_key") if state == "documents" else ("collection", "document_key", "version")
                for group in groups(self._connection, alias, condition, names):
                    counts[state][group["collection"]] += 1
        return {name: Holding(chunks=count, **{state: counts[state][name] for state in queries.STATES}) for name, count in chunks.items()}

    def _ranked(self, *searches: dict[str, Any]) -> list[Any]:
        """Return the answers to searches by one request, and by another where a full one ranks nothing, so that a repeat is the same."""
        answers = self._connection.searches(self._all, searches)
        if any(queries.undecided(search, answer) for search, answer in zip(searches, answers, strict=True)):
            return self._connection.searches(self._all, [queries.by_name(search) for search in searches])
        return answers

    def _rows(self, kind: Kind, query: dict[str, Any], **options: Any) -> Any:
        body = {"size": _PAGE, "query": query, "sort": [{"chunk_id": "asc"}], "track_total_hits": False, **options}
        return pages(self._connection, self._read[kind], body)


def aliases(connection: Connection) -> dict[str, list[str]]:
    """Return the indices of each alias that is ours."""
    found: dict[str, list[str]] = {}
    for kind in Kind:
        try:
            answer = connection.call("GET", f"/{prefix(kind)}*/_alias")
        except NotThereError:
            continue
        for index, content in answer.items():
            for alias in content["aliases"]:
                found.setdefault(alias, []).append(index)
    return found


def encoders(names: Mapping[str, Sequence[str]]) -> set[str]:
    """Return the encoders that have an index for readers."""
    first = prefix(Kind.FLUID)
    return {name.removeprefix(first).removesuffix("-read") for name in names if name.startswith(first) and name.endswith("-read")}


def _make(connection: Connection, kind: Kind, encoder: str) -> None:
    """Make an empty index under its aliases; one that is there is left as it is."""
    name, names = physical(kind, encoder), (read_alias(kind, encoder), write_alias(kind, encoder))
    try:
        connection.call("PUT", f"/{name}", {"aliases": {alias: {} for alias in names}}, seconds=connection.settings.write_seconds)
    except InvalidArgumentError as error:
        if "resource_already_exists" not in str(error):
            raise
        return
    mapping = connection.call("GET", f"/{name}/_mapping")[name]["mappings"]
    if mapping.get("dynamic") != "strict":
        connection.call("DELETE", f"/{name}", seconds=connection.settings.write_seconds)
        raise FailedPreconditionError("OpenSearch has no template for the indices; run `strata knowledge init`")


def _by_words(answer: Mapping[str, Any]) -> list[Hit]:
    return [Hit(chunk, score) for chunk, score in queries.hits(answer)]


def _by_cosine(answer: Mapping[str, Any]) -> list[Hit]:
    return [Hit(chunk, queries.cosine(score)) for chunk, score in queries.hits(answer)]


def _entry(fields: Mapping[str, Any]) -> Entry:
    row = {name: fields[name][0] for name in _ENTRY}
    embedded, closed, withdrawn = (row.pop(name) for name in _ENTRY[-3:])
    return Entry(**row, embedded=bool(embedded), closed=closed != NEVER, withdrawn=withdrawn != NEVER)
