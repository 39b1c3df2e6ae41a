"""Row changes of PostgreSQL at a given rate, and how long each takes from its commit until a query finds it, while others search.

`python services/ingestor/bench/bench_cdc.py [--backend opensearch] [--changes 10000] [--rate 500] [--rows 2000]` prints one JSON
object. PostgreSQL, the bus, the engine and ingestor run as processes of their own; a reader looks as the retriever does.
"""  # noqa: INP001 - a script

import argparse
import json
import os
import sys
import threading
import time
from typing import Any

from change_load import Load, Writer, Writing, complete, equality, looking, percentiles, search, watch, writing
from change_rig import Rig, rig

from knowledge.index import Index, IndexMissingError


def say(text: str) -> None:
    """Tell how far it is."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - progress


def filled(rig: Rig, rows: int, seconds: float) -> Index:
    """Wait until the first rows are there with their vectors; return the index."""
    index, deadline = None, time.monotonic() + seconds
    while time.monotonic() < deadline and rig.running():
        time.sleep(0.25)
        try:
            index = index or rig.reader()
        except IndexMissingError:
            continue
        if complete(index, rows):
            return index
    raise TimeoutError("the first rows are not there: " + (rig.folder / "ingestor.log").read_text()[-2000:])


def settled(index: Index, seconds: float) -> float:
    """Wait until nothing waits for a vector; return how long it took."""
    started = time.monotonic()
    while not complete(index, 1):
        if time.monotonic() - started > seconds:
            raise TimeoutError("vectors are missing")
        time.sleep(0.25)
    return time.monotonic() - started


def warmed(changing: Writing, load: Load, index: Index) -> None:
    """Let the first changes pass that do not count, and what they leave to do."""
    changing.begin()
    deadline = time.monotonic() + 300
    while (len(load.sent) < load.warming or load.waiting) and time.monotonic() < deadline:
        time.sleep(0.1)
    say(f"warm: {percentiles([load.seen[number] - load.sent[number].at for number in load.seen])}")
    settled(index, 600)


def measured(rig: Rig, changes: int, rate: float, rows: int, warming: int) -> dict[str, Any]:
    """Run once."""
    load, stopping = Load(warming=warming), threading.Event()
    changing = writing(Writer(rig.dsn, rows, 7), load, warming + changes, rate)
    started = time.monotonic()
    rig.start()
    index = filled(rig, rows, 300)
    first = time.monotonic() - started
    say(f"{rows} rows after {first:.1f} s; ingestor is {rig.process and rig.process.pid}")
    time.sleep(3.0)
    threads = [threading.Thread(target=watch, args=(looking(index), load, stopping))]
    threads.append(threading.Thread(target=search, args=(rig.reader(), load, stopping)))
    for thread in threads:
        thread.start()
    try:
        if warming:
            warmed(changing, load, index)
        embedded, cpu, texts, before = rig.embedded(), rig.cpu_seconds(), load.texts, len(load.seen)
        load.queries.clear()
        load.found.clear()
        started = time.monotonic()
        changing.begin()
        changing.join()
        took, load_now = time.monotonic() - started, os.getloadavg()[0]
        deadline = time.monotonic() + 30
        while load.waiting and time.monotonic() < deadline:
            time.sleep(0.1)
        busy = rig.cpu_seconds() - cpu
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
    say(f"{len(load.seen) - before} of {changes} seen: {percentiles(load.lags())}")
    vectors = settled(index, 600)
    return {
        "backend": rig.settings.backend, "changes": changes, "rate_asked": rate, "rate_sent": round(changes / took, 1), "rows": rows,
        "first_load_seconds": round(first, 1), "warming": warming,
        "seen": len(load.seen) - before, "commit_to_searchable_ms": percentiles(load.lags()),
        "bm25_found_ms": percentiles(load.found), "bm25_sampled": len(load.found), "query_ms": percentiles(load.queries),
        "queries": len(load.queries), "ingestor_cpu_seconds": round(busy, 1), "load_average": load_now, "texts_changed": load.texts - texts,
        "embedded": rig.embedded() - embedded, "vectors_complete_after_seconds": round(vectors, 1), "dead": rig.buried(),
        "disordered": load.disordered, "equality": equality(rig, index),
    }  # fmt: skip


def main() -> None:
    """Print the figures of one run as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", choices=["embedded", "opensearch"], default="embedded")
    parser.add_argument("--changes", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=500.0)
    parser.add_argument("--rows", type=int, default=2_000)
    parser.add_argument("--warm", type=int, default=0, help="changes before, for an engine that compiles what it runs often")
    arguments = parser.parse_args()
    with rig(arguments.backend) as servers:
        found = measured(servers, arguments.changes, arguments.rate, arguments.rows, arguments.warm)
    print(json.dumps(found, indent=1))  # noqa: T201 - the result


if __name__ == "__main__":
    main()
