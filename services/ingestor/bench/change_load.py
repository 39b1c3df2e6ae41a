"""The load of the benchmarks of change events: who changes rows, who watches them appear, who searches, and what is right at the end."""  # noqa: INP001 - beside scripts

import datetime as dt
import multiprocessing
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from typing import Any

import psycopg2
from change_rig import COLLECTION, Rig

from chassis.errors import UnavailableError
from knowledge.index import Index
from knowledge.lance import LanceIndex
from knowledge.opensearch import OpenSearchIndex
from knowledge.schema import Kind
from knowledge.visibility import Visibility

MIX = ("text",) * 57 + ("access",) * 14 + ("insert",) * 14 + ("delete",) * 15
LABELS = 97
_UNDER_WAY = 200
# Between two queries of the one who searches.
_PAUSE_SECONDS = 0.05
# Between two looks, which every lag may be too long by. At fifty a second they were a seventh of OpenSearch's own work.
_LOOK_SECONDS = 0.1
_SAMPLED = 50
WORDS = ["lamp", "desk", "warm", "light", "bulb", "shade", "switch", "cable", "brass", "oak", "steel", "reading", "hall", "soft", "timer"]
_FILL = "insert into products values (%(id)s, %(name)s, %(body)s, %(audience)s)"
# Each also tells a place of the log before its own commit and behind the one before.
_PLACE = "select (pg_current_wal_insert_lsn() - '0/0')::bigint"
_UPSERT = (
    f"with done as ({_FILL} on conflict (id) do update "
    f"set name = excluded.name, body = excluded.body, audience = excluded.audience) {_PLACE}"
)
_DELETE = f"with done as (delete from products where id = %(id)s) {_PLACE}"  # noqa: S608 - our own constant
# A row is not deleted before a reader has surely seen it.
_SETTLED_SECONDS = 30.0


@dataclass(frozen=True)
class Sent:
    """A committed change: its number and row, a place in the log before it, when its commit had returned, the word that finds it."""

    number: int
    row: int
    place: int
    at: float
    kind: str
    token: str
    # What the row says then, as short as it can be told.
    state: str


@dataclass
class Load:
    """What was sent, and when; what was seen, and when."""

    sent: dict[int, Sent] = field(default_factory=dict)
    waiting: dict[int, Sent] = field(default_factory=dict)
    seen: dict[int, float] = field(default_factory=dict)
    gone: set[int] = field(default_factory=set)
    tokens: dict[int, str] = field(default_factory=dict)
    states: dict[tuple[int, str], int] = field(default_factory=dict)
    found: list[float] = field(default_factory=list)
    queries: list[float] = field(default_factory=list)
    # Rows whose place went back, or that came again after their deletion.
    disordered: int = 0
    texts: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    # The first changes, which only warm the engine.
    warming: int = 0

    def lags(self) -> list[float]:
        """Return the seconds from commit to sight of every change that was seen and counts."""
        return [self.seen[number] - self.sent[number].at for number in self.seen if number >= self.warming]

    def note(self, sent: Sent) -> None:
        """Take a change in that was committed."""
        with self.lock:
            self.sent[sent.number] = self.waiting[sent.number] = sent
            self.gone |= {sent.row} if sent.kind == "delete" else set()
            self.texts += bool(sent.token)
            self.states[sent.row, sent.state] = sent.place
            if sent.token and sent.number % _SAMPLED == 0:
                self.tokens[sent.number] = sent.token


class Writer:
    """Changes rows one commit at a time, and repeats a change whose commit a crash may have lost."""

    def __init__(self, dsn: str, rows: int, seed: int) -> None:
        """Put the first rows into the table, in one commit."""
        self._dsn, self._rng = dsn, random.Random(seed)
        self._connection: Any = None
        self._rows = {n: {"id": n, "name": f"Lamp {n}", "body": self._body(f"zr{n}"), "audience": "public"} for n in range(1, rows + 1)}
        self._highest, self._inserted = rows, dict[int, float]()
        connection = psycopg2.connect(dsn)
        with connection, connection.cursor() as cursor:
            cursor.executemany(_FILL, list(self._rows.values()))
        connection.close()

    def run(self, changes: int, rate: float, warming: int, told: Connection, begun: Event, stopping: Event) -> None:
        """Commit that many changes at that rate once begun, those that warm first and the others once begun again; None at the end."""
        for numbers in (range(warming), range(warming, changes)):
            begun.wait()
            begun.clear()
            started = time.perf_counter()
            for number in numbers:
                time.sleep(max(started + (number - numbers.start) / rate - time.perf_counter(), 0))
                if stopping.is_set():
                    break
                told.send(self._change(number))
        told.send(None)

    def _body(self, token: str) -> str:
        """Return about 190 characters with a word of their own."""
        return f"{token} " + " ".join(self._rng.choices(WORDS, k=32))

    def _change(self, number: int) -> Sent:
        kind = self._rng.choice(MIX)
        row_id = self._highest + 1 if kind == "insert" else self._rng.choice(list(self._rows))
        if kind == "delete" and time.perf_counter() - self._inserted.get(row_id, 0.0) < _SETTLED_SECONDS:
            kind = "text"
        row: dict[str, Any] = dict(self._rows.get(row_id) or {"id": row_id, "name": f"Lamp {row_id}", "audience": "public"})
        if kind == "access":
            # Never back to what it was, which would be no change at all where both come in one commit.
            row["audience"] = next(label for label in (f"l{number % LABELS}", f"l{(number + 1) % LABELS}") if label != row["audience"])
        elif kind != "delete":
            row["body"] = self._body(f"zq{number}")
        place, at = self._commit(row, _DELETE if kind == "delete" else _UPSERT), time.perf_counter()
        if kind == "delete":
            del self._rows[row_id]
        else:
            self._rows[row_id] = row
        if kind == "insert":
            self._highest, self._inserted[row_id] = row_id, at
        token = f"zq{number}" if kind in {"text", "insert"} else ""
        return Sent(number, row_id, place, at, kind, token, state(row["body"], row["audience"]))

    def _commit(self, row: dict[str, Any], statement: str) -> int:
        """Commit, as often as it takes; return a place of the log before the change."""
        while True:
            try:
                if self._connection is None:
                    self._connection = psycopg2.connect(self._dsn)
                    self._connection.autocommit = True
                with self._connection.cursor() as cursor:
                    cursor.execute(statement, row)
                    return int(cursor.fetchone()[0])
            except (psycopg2.OperationalError, psycopg2.InterfaceError):
                self._connection = None
                time.sleep(0.05)


def state(body: str, audience: str) -> str:
    """Return what tells a row's texts and access from those that it had before."""
    return f"{body.partition(' ')[0]} {audience}"


@dataclass
class Writing:
    """A writer in a process of its own, which no reader's work delays."""

    process: Any
    begun: Any
    stopping: Any
    listener: threading.Thread

    def begin(self) -> None:
        """Let it write from now on."""
        self.begun.set()

    def stop(self) -> None:
        """Let it end after the change that it is at."""
        self.stopping.set()
        self.begun.set()
        self.join()

    def join(self) -> None:
        """Wait for its end."""
        self.process.join()
        self.listener.join()


def writing(writer: Writer, load: Load, changes: int, rate: float) -> Writing:
    """Start a writer that waits for its beginning, and whose changes are noted in `load`; to be called before threads run."""
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe(duplex=False)
    begun, stopping = fork.Event(), fork.Event()
    process = fork.Process(target=writer.run, args=(changes, rate, load.warming, there, begun, stopping), daemon=True)
    process.start()
    if not load.warming:
        begun.set()
        while begun.is_set():
            time.sleep(0.01)

    def listen() -> None:
        while (sent := here.recv()) is not None:
            load.note(sent)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    return Writing(process, begun, stopping, listener)


Look = Callable[[], dict[int, int] | None]


def looking(index: Index) -> Look:
    """Return what gives the place of every row once something has changed."""
    if isinstance(index, LanceIndex):
        return _embedded(index)
    assert isinstance(index, OpenSearchIndex)  # noqa: S101 - there are two
    return _opensearch(index)


def _embedded(index: LanceIndex) -> Look:
    table, known = index._tables[Kind.FLUID], -1  # noqa: SLF001 - the cheapest look at every row

    def look() -> dict[int, int] | None:
        nonlocal known
        version = index.versions()["fluid"]
        if version == known:
            return None
        found = table.search().select(["document_key", "position"]).limit(None).to_arrow().to_pydict()
        known = version
        return {int(key.partition("/")[2]): place for key, place in zip(found["document_key"], found["position"], strict=True)}

    return look


def _opensearch(index: OpenSearchIndex) -> Look:
    alias, known, held, last = index._read[Kind.FLUID], -1, dict[int, int](), -1  # noqa: SLF001 - the cheapest look at every row

    def look() -> dict[int, int] | None:
        nonlocal known, last
        version = index.versions()["fluid"]
        if version == known:
            return None
        # In the order of writing, which is not that of places; what was under way at the last look may have come below it.
        clauses = [{"exists": {"field": "document_key"}}, {"range": {"_seq_no": {"gt": last - _UNDER_WAY}}}]
        body = {"size": 10_000, "query": {"bool": {"filter": clauses}}, "_source": False, "stored_fields": "_none_", "sort": ["_seq_no"]}
        fields = {"docvalue_fields": ["document_key", "position", "collection"], "track_total_hits": False}
        for hit in index._connection.search(alias, {**body, **fields}, seconds=30)["hits"]["hits"]:  # noqa: SLF001 - as above
            row = int(hit["fields"]["document_key"][0].partition("/")[2])
            last = max(last, hit["sort"][0])
            if "collection" in hit["fields"]:
                held[row] = hit["fields"]["position"][0]
            else:
                held.pop(row, None)
        known = version
        return dict(held)

    return look


def watch(look: Look, load: Load, stopping: threading.Event) -> None:
    """Note when each change is seen by a reader of another process, and rows that go back."""
    before: dict[int, int] = {}
    deleted: set[int] = set()
    while not stopping.wait(_LOOK_SECONDS):
        try:
            held = look()
        except (UnavailableError, OSError, RuntimeError):
            # The engine is being restarted.
            continue
        now = time.perf_counter()
        if held is not None:
            deleted |= before.keys() - held.keys()
            load.disordered += sum(place < before.get(row, place) or row in deleted for row, place in held.items())
            before = held
        with load.lock:
            for number, sent in list(load.waiting.items()):
                if before.get(sent.row, -1) >= sent.place or (sent.row in load.gone and sent.row not in before):
                    load.seen[number] = now
                    del load.waiting[number]


def search(index: Index, load: Load, stopping: threading.Event) -> None:
    """Ask BM25 for the word of a change until it is found, one query after the other."""
    labels = frozenset({"public", *(f"l{n}" for n in range(LABELS))})
    visible = Visibility("t", labels, (COLLECTION,), dt.datetime.now(dt.UTC) + dt.timedelta(days=1))
    while not stopping.wait(_PAUSE_SECONDS):
        with load.lock:
            waiting = next(iter(load.tokens.items()), None)
        started = time.perf_counter()
        hits = index.lexical(waiting[1] if waiting else "warm lamp brass", visible, 10)
        now = time.perf_counter()
        load.queries.append(now - started)
        with load.lock:
            if waiting and any(waiting[1] in hit.chunk.text for hit in hits):
                load.found.append(now - load.sent[waiting[0]].at)
                del load.tokens[waiting[0]]
            elif waiting and waiting[0] in load.seen:
                # Another change of the row came in the same commit.
                del load.tokens[waiting[0]]


def percentiles(values: list[float]) -> dict[str, float]:
    """Return p50, p95, p99 and the maximum in milliseconds."""
    ordered = sorted(values)
    at = {f"p{share}": ordered[min(len(ordered) * share // 100, len(ordered) - 1)] for share in (50, 95, 99)} if ordered else {}
    return {name: round(1000 * value, 1) for name, value in {**at, "max": ordered[-1] if ordered else 0.0}.items()}


def complete(index: Index, rows: int) -> bool:
    """Return whether at least that many rows are there, each with its vector."""
    entries = index.inventory(Kind.FLUID, COLLECTION)
    return len(entries) >= rows and all(entry.embedded for entry in entries)


def equality(rig: Rig, index: Index) -> dict[str, int]:
    """Compare the index with the table, access included."""
    connection = psycopg2.connect(rig.dsn)
    with connection, connection.cursor() as cursor:
        cursor.execute("select id, name, body, audience from products")
        table = {f"{COLLECTION}/{row[0]}": row[1:] for row in cursor.fetchall()}
    connection.close()
    entries = index.inventory(Kind.FLUID, COLLECTION)
    held = index.documents(Kind.FLUID, sorted({entry.document_key for entry in entries}))
    same = {key: [(chunk.title, chunk.text, chunk.label_key) for chunk in chunks] for key, chunks in held.items()}
    return {
        "rows": len(table),
        "missing": len(table.keys() - held.keys()),
        "extra": len(held.keys() - table.keys()),
        "doubled": len(entries) - len(held),
        "stale": sum(same[key][0] != row for key, row in table.items() if key in same),
        "without_vector": sum(not entry.embedded for entry in entries),
    }
