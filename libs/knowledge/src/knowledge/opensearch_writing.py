"""Writes of one kind to OpenSearch: whole documents, fenced by the place of their change, seen all at once."""

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any

import orjson

from chassis.errors import FailedPreconditionError, InvalidArgumentError, UnavailableError
from knowledge.opensearch_client import CONFLICT, MISSING, Connection, NotThereError, reasons
from knowledge.opensearch_last_read import Held, LastRead, Stored
from knowledge.opensearch_queries import BARE, LARGEST_PAGE, source
from knowledge.schema import Chunk, digest
from knowledge.visibility import OVER

COMMITS = "commits"
_KEYS_AT_ONCE = 500
_BULK_BYTES = 4 * 1024 * 1024
_BULKS_AT_ONCE = 2
# Less is not worth a second request, and more would wait in the node's memory.
_LEAST_ROWS, _MOST_ROWS = 100, 1000
_ATTEMPTS = 4
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_ID_BYTES = 500
# Every column that is compared as a number has a value in every row, which spares searches a look at each row.
_NO_CHUNK: dict[str, Any] = {
    "effective_from": 0, "over_at": OVER, "superseded_at": None, "expires_at": None, "withdrawn_at": None, "closed_position": None,
}  # fmt: skip
_REFUSED = {401, 403}
_OK = {200, 201}


def row_id(chunk_id: str) -> str:
    """Return the name of a chunk's row; OpenSearch takes no more than 512 bytes."""
    return chunk_id if len(chunk_id.encode()) <= _LONGEST_ID_BYTES else f"sha256:{digest(chunk_id)}"


def deletion_id(document_key: str) -> str:
    """Return the name of the row that a deleted document leaves."""
    return f"deleted:{digest(document_key)}"


class Writer:
    """The only writer of one kind, under one alias."""

    def __init__(self, connection: Connection, alias: str) -> None:
        """Write under `alias`, which must be there."""
        self._connection, self._alias = connection, alias
        self._lock, self._counting = Lock(), Lock()
        self._number = 0
        self.last_read = LastRead()
        # Somebody before us may have written what was never made visible.
        self._unseen = True

    def replace(self, documents: Mapping[str, Sequence[Chunk]], positions: Mapping[str, int] | None = None) -> int:
        """Make these the only chunks of these documents; return the number of the commit that shows them.

        Without a position a document is written as after its latest change. Raises UnavailableError when any of it could not
        be written: nothing of it counts as done then, and a repeat is safe.
        """
        with self._lock:
            if self._unseen:
                self._show()
            held = self._held(list(documents))
            lines: list[bytes] = []
            for key, chunks in documents.items():
                there = held.get(key) or Held()
                place = (positions or {}).get(key)
                if place is None:
                    place = max([there.place, *(chunk.position for chunk in chunks)])
                if there.place <= place:
                    lines += _replacement(key, chunks, there, place)
            return self._commit(lines)

    def update(self, chunks: Sequence[Chunk]) -> int:
        """Overwrite chunks that are there and hold no later change; return the number of the commit that shows them."""
        lines: list[bytes] = []
        for chunk, there in self._there(chunks):
            # A row that is replaced or deleted meanwhile has a later version, and this write is refused.
            if there.position <= chunk.position:
                lines += _write(row_id(chunk.chunk_id), source(chunk), there.version)
        return self._commit(lines)

    def forget_deletions(self, before: int) -> None:
        """Remove what documents left that were deleted before `before`, microseconds since 1970."""
        body = {"size": 1000, "query": {"range": {"deleted_at": {"lt": before}}}, "_source": False, "version": True}
        while rows := self._connection.search(self._alias, body)["hits"]["hits"]:
            self._bulk([_delete(row["_id"], row["_version"]) for row in rows])
            self._show()

    def _held(self, keys: Sequence[str]) -> dict[str, Held]:
        known = self.last_read.take()
        found = {key: known[key] for key in keys if key in known}
        left = [key for key in keys if key not in known]
        for first in range(0, len(left), _KEYS_AT_ONCE):
            for row in self._numbers("document_key", left[first : first + _KEYS_AT_ONCE]):
                held = found.setdefault(row["fields"]["document_key"][0], Held())
                held.rows[row_id(row["fields"]["chunk_id"][0])] = _stored(row)
        return found

    def _there(self, chunks: Sequence[Chunk]) -> Iterator[tuple[Chunk, Stored]]:
        """Yield those of the chunks that have a row, with what is known of it."""
        known, left = self.last_read.take(), dict[str, Chunk]()
        for chunk in chunks:
            if (held := known.get(chunk.document_key)) is None:
                left[chunk.chunk_id] = chunk
            elif (there := held.rows.get(row_id(chunk.chunk_id))) is not None:
                yield chunk, there
        names = list(left)
        for first in range(0, len(names), _KEYS_AT_ONCE):
            for row in self._numbers("chunk_id", names[first : first + _KEYS_AT_ONCE]):
                yield left[row["fields"]["chunk_id"][0]], _stored(row)

    def _numbers(self, column: str, values: Sequence[str]) -> Iterator[Any]:
        """Yield rows with one of these values: names, position and version, without a look at what is stored of them."""
        body: dict[str, Any] = {
            "size": LARGEST_PAGE,
            "query": {"bool": {"filter": [{"terms": {column: list(values)}}]}},
            **BARE,
            "docvalue_fields": ["chunk_id", "document_key", "position"],
            "version": True,
            "sort": [{"chunk_id": "asc"}],
            "track_total_hits": False,
        }
        return pages(self._connection, self._alias, body)

    def _commit(self, lines: list[bytes]) -> int:
        """Write the lines and a new number of the commit, then show all of it; return the number."""
        if not lines:
            return self._last()
        number = self._next()
        self._unseen = True
        counter = {"chunk_id": COMMITS, "position": number, **_NO_CHUNK}
        self._bulk([*lines, *_write(COMMITS, counter, number)])
        self._show()
        return number

    def _last(self) -> int:
        with self._counting:
            if not self._number:
                rows = self._connection.call("POST", f"/{self._alias}/_mget", {"docs": [{"_id": COMMITS, "_source": ["position"]}]})["docs"]
                self._number = int(rows[0]["_source"]["position"]) if rows[0].get("found") else 0
            return self._number

    def _next(self) -> int:
        """Return a number above every one before, of earlier generations too: the time, unless that stands still."""
        last = self._last()
        with self._counting:
            self._number = max(last, self._number) + 1
            self._number = max(self._number, time.time_ns() // 1000)
            return self._number

    def _show(self) -> None:
        answer = self._connection.call("POST", f"/{self._alias}/_refresh", seconds=self._connection.settings.write_seconds)
        if answer["_shards"]["failed"]:
            raise UnavailableError(f"OpenSearch could not show a commit: {reasons(answer['_shards'])}")
        self._unseen = False
        self.last_read.forget()

    def _bulk(self, lines: Sequence[bytes]) -> None:
        self.last_read.forget()
        # A request is indexed by one thread of the node; no row is in two of them.
        with ThreadPoolExecutor(_BULKS_AT_ONCE) as pool:
            list(pool.map(self._take, _groups(lines)))

    def _take(self, group: list[bytes]) -> None:
        left, pause = group, _FIRST_PAUSE_SECONDS
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                left, reason = self._send(left)
            except NotThereError:
                raise
            except UnavailableError:
                if attempt == _ATTEMPTS:
                    raise
            else:
                if not left:
                    break
                if attempt == _ATTEMPTS:
                    raise UnavailableError(f"OpenSearch did not take {len(left)} of {len(group)} rows: {reason}")
            time.sleep(pause)
            pause *= 3

    def _send(self, lines: list[bytes]) -> tuple[list[bytes], str]:
        """Send operations; return those that may succeed when repeated, and why they did not."""
        seconds = self._connection.settings.write_seconds
        answer = self._connection.call("POST", f"/{self._alias}/_bulk", b"".join(lines), seconds=seconds, require_alias=True)
        if not answer["errors"]:
            return [], ""
        again, why = list[bytes](), ""
        for line, item in zip(lines, answer["items"], strict=True):
            (result,) = item.values()
            status = result["status"]
            # A conflict is a later change that is there already; a deletion of what is not there has been done before.
            if status in _OK or status == CONFLICT or (status == MISSING and "error" not in result):
                continue
            why = reasons(result.get("error"))
            if status == MISSING:
                raise NotThereError(f"OpenSearch: {why}")
            if status in _REFUSED:
                raise FailedPreconditionError(f"OpenSearch refuses user {self._connection.settings.user!r} ({status}): {why}")
            if status < 429:
                raise InvalidArgumentError(f"OpenSearch refuses row {result['_id']!r}: {why}")
            again.append(line)
        return again, why


def pages(connection: Connection, target: str, body: dict[str, Any]) -> Iterator[Any]:
    """Yield every hit of a search with a sort that no two rows share, page by page."""
    while True:
        hits = connection.search(target, body, seconds=connection.settings.write_seconds)["hits"]["hits"]
        yield from hits
        if len(hits) < body["size"]:
            return
        body = {**body, "search_after": hits[-1]["sort"]}


def groups(connection: Connection, target: str, condition: dict[str, Any], names: Sequence[str]) -> Iterator[Mapping[str, str]]:
    """Yield every combination of values that these keywords have in rows that meet the condition."""
    parts: dict[str, Any] = {"size": LARGEST_PAGE, "sources": [{name: {"terms": {"field": name}}} for name in names]}
    while True:
        body = {"size": 0, "query": condition, "aggs": {"groups": {"composite": parts}}}
        found = connection.search(target, body, seconds=connection.settings.write_seconds)["aggregations"]["groups"]
        for bucket in found["buckets"]:
            yield bucket["key"]
        if "after_key" not in found:
            return
        parts = {**parts, "after": found["after_key"]}


def _replacement(key: str, chunks: Sequence[Chunk], held: Held, place: int) -> list[bytes]:
    rows = {row_id(chunk.chunk_id): source(chunk) for chunk in chunks}
    if not rows:
        deleted = {"document_key": key, "position": place, "deleted_at": time.time_ns() // 1000, **_NO_CHUNK}
        rows[deletion_id(key)] = {"chunk_id": deletion_id(key), **deleted}
    gone = [_delete(name, place) for name in sorted(held.rows.keys() - rows.keys())]
    return [*gone, *(line for name, row in rows.items() for line in _write(name, row, place))]


def _stored(row: Mapping[str, Any]) -> Stored:
    return Stored(row["_version"], row["fields"]["position"][0])


def _write(name: str, row: Mapping[str, Any], version: int) -> list[bytes]:
    action = {"index": {"_id": name, "version": version, "version_type": "external_gte"}}
    return [orjson.dumps(action) + b"\n" + orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n"]


def _delete(name: str, version: int) -> bytes:
    return orjson.dumps({"delete": {"_id": name, "version": version, "version_type": "external_gte"}}) + b"\n"


def _groups(lines: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Yield the operations in as few requests as are as good as equal, so that those that run at once end together."""
    rows = min(max(-(-len(lines) // _BULKS_AT_ONCE), _LEAST_ROWS), _MOST_ROWS)
    group, size = list[bytes](), 0
    for line in lines:
        if group and (size + len(line) > _BULK_BYTES or len(group) == rows):
            yield group
            group, size = [], 0
        group.append(line)
        size += len(line)
    if group:
        yield group
