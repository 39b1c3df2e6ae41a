"""Row changes on the stream at a given rate, and how long each takes until a query finds it, while others search.

`python services/ingestor/bench/bench_cdc.py [--changes 10000] [--rate 500] [--rows 2000]` prints one JSON object. The feed runs
in a process of its own with a real bus, index and encoder; another process's reader looks, as the retriever does.
"""  # noqa: INP001 - a script

import argparse
import asyncio
import datetime as dt
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from encoders import Encoder
from knowledge.index import IndexMissingError
from knowledge.lance import LanceIndex
from knowledge.schema import Kind
from knowledge.visibility import Visibility
from testkit.nats import nats_server

FEEDING = Path(__file__).parents[1] / "tests" / "cdc" / "feeding.py"
SUBJECT = "cdc.shop.public.products"
MIX = ("text",) * 57 + ("access",) * 14 + ("insert",) * 14 + ("delete",) * 15
LABELS = 97
TABLE = {
    "key": ["id"],
    "collection": "products",
    "document": {"id": "{{ id }}", "title": "{{ name }}", "text": "{{ body }}", "labels": "{{ audience }}"},
}
WORDS = ["lamp", "desk", "warm", "light", "bulb", "shade", "switch", "cable", "brass", "oak", "steel", "reading", "hall", "soft", "timer"]


@dataclass
class Load:
    """What was sent, and when; what was seen, and when."""

    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)
    # By place: the row, and the time of its publication.
    sent: dict[int, tuple[str, float]] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    seen: dict[int, float] = field(default_factory=dict)
    tokens: dict[int, float] = field(default_factory=dict)
    found: list[float] = field(default_factory=list)
    queries: list[float] = field(default_factory=list)
    texts: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def body(rng: random.Random, place: int) -> str:
    """Return about 190 characters with a word of their own."""
    return f"zq{place} " + " ".join(rng.choices(WORDS, k=32))


def declare(folder: Path) -> None:
    """Write the domain that maps the table."""
    domain = folder / "domains" / "bench"
    (domain / "documents").mkdir(parents=True)
    (domain / "documents" / "none.jsonl").write_text("")
    entry = {"name": "products", "kind": "fluid", "path": "documents/none.jsonl", "owner": "bench", "review_date": "2030-01-01"}
    (domain / "domain.yaml").write_text(yaml.safe_dump({"collections": [{**entry, "licence": "invented", "labels": ["public"]}]}))
    source = {"name": "shop", "driver": "external", "tables": {"public.products": TABLE}}
    (domain / "sources.yaml").write_text(yaml.safe_dump({"sources": [source]}))


def envelope(op: str, place: int, row: dict[str, Any]) -> bytes:
    """Return what a driver would send now."""
    values = {"before": {"id": row["id"]}, "after": None} if op == "d" else {"before": None, "after": row}
    return json.dumps({**values, "op": op, "source": {"lsn": place, "ts_ms": time.time_ns() // 1_000_000}}).encode()


def change(rng: random.Random, load: Load, place: int, kind: str) -> tuple[str, dict[str, Any]]:
    """Change one row and return the operation."""
    number = max(load.rows, default=0) + 1 if kind == "insert" else rng.choice(list(load.rows))
    if kind == "delete":
        return "d", load.rows.pop(number)
    row = dict(load.rows.get(number) or {"id": number, "name": f"Lamp {number}", "audience": "public"})
    if kind == "access":
        # Never back to what it was, which would be no change at all where both come in one commit.
        row["audience"] = next(label for label in (f"l{place % LABELS}", f"l{(place + 1) % LABELS}") if label != row["audience"])
    else:
        row["body"] = body(rng, place)
        load.texts += 1
    load.rows[number] = row
    return "c" if kind == "insert" else "u", row


def watch(folder: Path, key: str, load: Load, stopping: threading.Event) -> None:
    """Note when each change is seen by a reader of another process, and search for words of some all the time."""
    index = LanceIndex.open(folder, key)
    table, version = index._tables[Kind.FLUID], -1  # noqa: SLF001 - the cheapest look at every row
    while not stopping.is_set():
        now_version = index.versions()["fluid"]
        if now_version != version:
            version = now_version
            places = table.search().select(["document_id", "position"]).limit(None).to_arrow().to_pydict()
            now, held = time.perf_counter(), dict(zip(places["document_id"], places["position"], strict=True))
            with load.lock:
                for place, (row, _) in list(load.sent.items()):
                    if place not in load.seen and (held.get(row, 0) >= place or (row in load.gone and row not in held)):
                        load.seen[place] = now
        time.sleep(0.02)


def search(folder: Path, key: str, load: Load, stopping: threading.Event) -> None:
    """Ask BM25 for the word of a change until it is found, one after the other."""
    index = LanceIndex.open(folder, key)
    visible = Visibility(
        "t", frozenset({"public", *(f"l{n}" for n in range(LABELS))}), ("products",), dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
    )
    while not stopping.is_set():
        with load.lock:
            waiting = [place for place in load.tokens if load.tokens[place] > 0][:1]
        started = time.perf_counter()
        hits = index.lexical(f"zq{waiting[0]}" if waiting else "warm lamp brass", visible, 10)
        now = time.perf_counter()
        load.queries.append(now - started)
        with load.lock:
            if waiting and any(hit.chunk.position == waiting[0] for hit in hits):
                load.found.append(now - load.tokens.pop(waiting[0]))
            elif waiting and waiting[0] in load.seen:
                # Another change of the row came in the same commit.
                load.tokens.pop(waiting[0])
        time.sleep(0.01)


def percentiles(values: list[float]) -> dict[str, float]:
    """Return p50, p95, p99 and the maximum in milliseconds."""
    ordered = sorted(values)
    at = {f"p{share}": ordered[min(len(ordered) * share // 100, len(ordered) - 1)] for share in (50, 95, 99)} if ordered else {}
    return {name: round(1000 * value, 1) for name, value in {**at, "max": ordered[-1] if ordered else 0.0}.items()}


def equal(folder: Path, key: str, load: Load) -> dict[str, int]:
    """Compare the index with the table, access included."""
    index = LanceIndex.open(folder, key)
    rows = index._tables[Kind.FLUID].search().limit(None).to_arrow().to_pylist()  # noqa: SLF001 - every column
    held: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        held.setdefault(row["document_id"], []).append(row)
    expected = {str(number): row for number, row in load.rows.items()}
    wrong = [
        name for name, row in expected.items()
        if name in held and (held[name][0]["text"], held[name][0]["label_key"]) != (row["body"], row["audience"])
    ]  # fmt: skip
    return {
        "missing": len(expected.keys() - held.keys()),
        "extra": len(held.keys() - expected.keys()),
        "doubled": sum(len(some) > 1 for some in held.values()),
        "stale": len(wrong),
        "without_vector": sum(row["vector"] is None for row in rows),
    }


async def publish(js: Any, load: Load, rng: random.Random, changes: int, rate: float) -> float:
    """Publish at the rate; return the seconds that it took."""
    started, pending = time.perf_counter(), set[asyncio.Task[Any]]()
    first = max(load.places.values(), default=0) + 1
    for number in range(changes):
        await asyncio.sleep(max(started + number / rate - time.perf_counter(), 0))
        place, kind = first + number, rng.choice(MIX)
        op, row = change(rng, load, place, kind)
        with load.lock:
            load.sent[place] = (str(row["id"]), time.perf_counter())
            load.gone |= {str(row["id"])} if op == "d" else set()
            if kind in {"text", "insert"} and number % 50 == 0:
                load.tokens[place] = time.perf_counter()
        task = asyncio.create_task(js.publish(SUBJECT, envelope(op, place, row), timeout=60))
        pending.add(task)
        task.add_done_callback(pending.discard)
    await asyncio.gather(*pending)
    load.places["last"] = first + changes
    return time.perf_counter() - started


def say(text: str) -> None:
    """Tell how far it is."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - progress


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def counted(folder: Path) -> dict[str, int]:
    """Return what the ledger counted."""
    store = sqlite3.connect(folder / "ledger.db", timeout=30)
    applied, dead, embedded = store.execute("SELECT applied, dead, embedded FROM cdc_sources").fetchone() or (0, 0, 0)
    store.close()
    return {"applied": applied, "dead": dead, "embedded": embedded}


async def settled(folder: Path, wanted: int, seconds: float) -> float:
    """Wait until nothing waits for a vector; return how long it took."""
    started = time.perf_counter()
    index = None
    while time.perf_counter() - started < seconds:
        await asyncio.sleep(0.25)
        try:
            index = index or LanceIndex.open(folder / "knowledge", Encoder.load(threads=1).identity.key())
        except IndexMissingError:
            continue
        if index.holdings().get("products") and counted(folder)["applied"] >= wanted and not index.without_vector(Kind.FLUID, 1):
            return time.perf_counter() - started
    raise TimeoutError(f"not settled after {seconds} s: {counted(folder)}")


async def bench(changes: int, rate: float, rows: int) -> dict[str, Any]:
    """Run once."""
    rng, load = random.Random(7), Load()
    with tempfile.TemporaryDirectory() as name, nats_server(Path(name) / "state") as server:
        folder = Path(name)
        await server.declare()
        declare(folder)
        environment = {**os.environ, "STRATA_STATE_DIR": str(server.state_dir), "STRATA_PORT_OFFSET": str(server.port_offset)}
        process = await asyncio.create_subprocess_exec(sys.executable, str(FEEDING), name, env=environment, stdout=subprocess.DEVNULL)
        stopping = threading.Event()
        client = await server.connect()
        try:
            js = client.jetstream()
            for number in range(1, rows + 1):
                load.rows[number] = {"id": number, "name": f"Lamp {number}", "body": body(rng, number), "audience": "public"}
                await js.publish(SUBJECT, envelope("r", number, load.rows[number]))
            load.places["last"] = rows
            first, cpu = await settled(folder, rows, 300), cpu_seconds(process.pid)
            say(f"{rows} rows after {first:.1f} s")
            await asyncio.sleep(2.0)
            before, key = counted(folder), Encoder.load(threads=1).identity.key()
            threads = [threading.Thread(target=work, args=(folder / "knowledge", key, load, stopping)) for work in (watch, search)]
            for thread in threads:
                thread.start()
            load.texts = 0
            took = await publish(js, load, rng, changes, rate)
            visible_by = time.perf_counter() + 30
            while len(load.seen) < changes and time.perf_counter() < visible_by:  # noqa: ASYNC110 - threads do the looking
                await asyncio.sleep(0.1)
            busy = cpu_seconds(process.pid) - cpu
            stopping.set()
            for thread in threads:
                thread.join()
            say(f"{len(load.seen)} of {changes} seen: {percentiles([load.seen[place] - load.sent[place][1] for place in load.seen])}")
            vectors = await settled(folder, 0, 600)
            await asyncio.sleep(2.0)
            after = counted(folder)
            lags = [load.seen[place] - at for place, (_, at) in load.sent.items() if place in load.seen]
            load_now = os.getloadavg()[0]
            return {
                "changes": changes, "rate_asked": rate, "rate_sent": round(changes / took, 1), "rows": rows,
                "first_load_seconds": round(first, 1), "seen": len(load.seen), "visible_ms": percentiles(lags),
                "bm25_found_ms": percentiles(load.found), "bm25_sampled": len(load.found), "query_ms": percentiles(load.queries),
                "queries": len(load.queries), "feed_cpu_seconds": round(busy, 1), "load_average": load_now,
                "texts_changed": load.texts, "embedded": after["embedded"] - before["embedded"],
                "vectors_complete_after_seconds": round(vectors, 1), "equality": equal(folder / "knowledge", key, load),
            }  # fmt: skip
        finally:
            stopping.set()
            await client.close()
            process.kill()
            await process.wait()


def main() -> None:
    """Print the figures of one run as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--changes", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=500.0)
    parser.add_argument("--rows", type=int, default=2_000)
    arguments = parser.parse_args()
    print(json.dumps(asyncio.run(bench(arguments.changes, arguments.rate, arguments.rows)), indent=1))  # noqa: T201 - the result


if __name__ == "__main__":
    main()
