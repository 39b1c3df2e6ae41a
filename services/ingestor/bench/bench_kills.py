"""Ingestor killed again and again while rows change, the servers restarted under it: what is wrong at the end, and for how long it lags.

`python services/ingestor/bench/bench_kills.py [--backend opensearch] [--kills 20] [--rate 60] [--rows 1000]` prints one JSON object.
"""  # noqa: INP001 - a script

import argparse
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bench_cdc import filled, say, settled
from change_load import Load, Writer, equality, looking, percentiles, watch, writing
from change_rig import Rig, rig

_CALM_SECONDS = 2.0
_LONGEST_SECONDS = 60.0
_EVERY = 5


@dataclass
class Tails:
    """Seconds from a restart until all that was committed before it was searchable, by what was restarted; None where killed before."""

    found: dict[str, list[float]] = field(default_factory=dict)
    cut_short: int = 0


def caught_up(load: Load, before: float) -> bool:
    """Return whether everything that was committed before a time was seen."""
    with load.lock:
        return all(sent.at > before for sent in load.waiting.values())


def supervise(servers: Rig) -> None:
    """Start ingestor, again where it ended because a server was away."""
    if not servers.running():
        servers.start()


def tail(servers: Rig, load: Load, at: float) -> float:
    """Wait until all that was committed before `at` is searchable; return how long after `at` that was."""
    deadline = time.perf_counter() + _LONGEST_SECONDS
    while not caught_up(load, at) and time.perf_counter() < deadline:
        supervise(servers)
        time.sleep(0.02)
    with load.lock:
        seen = [load.seen[number] - at for number, sent in load.sent.items() if sent.at <= at and number in load.seen]
    return max(0.0, *seen) if caught_up(load, at) else _LONGEST_SECONDS


def restart(name: str, servers: Rig, load: Load, tails: Tails) -> None:
    """End a server without warning, start it again, and note how long the backlog took."""
    ends: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
        "nats": (servers.nats.kill, servers.nats.start),
        "postgres": (servers.postgres.kill, servers.postgres.start),
    }
    if servers.node is not None:
        ends["opensearch"] = (servers.node.kill, servers.node.start)
    kill, start = ends[name]
    kill()
    time.sleep(1.0)
    start()
    at = time.perf_counter()
    tails.found.setdefault(name, []).append(tail(servers, load, at))
    say(f"{name} restarted: {tails.found[name][-1]:.2f} s")


def drill(servers: Rig, load: Load, kills: int, rng: random.Random) -> Tails:
    """Kill ingestor that often, half of the time before it has caught up; every fifth time restart the servers, too."""
    tails = Tails()
    names = ["nats", "postgres", *(["opensearch"] if servers.node else [])]
    for number in range(1, kills + 1):
        servers.kill()
        time.sleep(rng.uniform(0.1, 1.0))
        at = time.perf_counter()
        servers.start()
        if number % 2 == 0 and number != kills:
            # At any point of its start, or of the work on the backlog.
            time.sleep(rng.uniform(0.3, 4.0))
            tails.cut_short += not caught_up(load, at)
            continue
        tails.found.setdefault("ingestor", []).append(tail(servers, load, at))
        say(f"kill {number}: {tails.found['ingestor'][-1]:.2f} s")
        time.sleep(rng.uniform(0.2, _CALM_SECONDS))
        if number % _EVERY == 0:
            for name in names:
                restart(name, servers, load, tails)
                time.sleep(rng.uniform(0.2, _CALM_SECONDS))
    return tails


def measured(servers: Rig, kills: int, rate: float, rows: int, seed: int) -> dict[str, Any]:
    """Run once."""
    load, stopping = Load(), threading.Event()
    changing = writing(Writer(servers.dsn, rows, seed), load, sys.maxsize, rate)
    servers.start()
    index = filled(servers, rows, 300)
    say(f"{rows} rows are there")
    embedded = servers.embedded()
    watching = threading.Thread(target=watch, args=(looking(index), load, stopping))
    started = time.perf_counter()
    watching.start()
    changing.begin()
    try:
        time.sleep(_CALM_SECONDS)
        tails = drill(servers, load, kills, random.Random(seed))
        took = time.perf_counter() - started
        changing.stop()
        last = tail(servers, load, time.perf_counter())
    finally:
        changing.stop()
        stopping.set()
        watching.join()
    settled(index, 300)
    time.sleep(1.0)
    again = servers.embedded() - embedded
    return {
        "backend": servers.settings.backend, "kills": kills, "seconds": round(took, 1), "changes": len(load.sent), "rate_asked": rate,
        "rows": rows, "seen": len(load.seen), "commit_to_searchable_ms": percentiles(load.lags()),
        "tail_seconds": {name: {"worst": round(max(some), 2), "n": len(some)} for name, some in tails.found.items()},
        "killed_before_caught_up": tails.cut_short, "last_tail_seconds": round(last, 2), "disordered": load.disordered,
        "texts_changed": load.texts, "texts_embedded": again, "ratio": round(again / max(load.texts, 1), 4), "dead": servers.buried(),
        "load_average": os.getloadavg()[0], "equality": equality(servers, index),
    }  # fmt: skip


def main() -> None:
    """Print the figures of one run as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", choices=["embedded", "opensearch"], default="embedded")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--rate", type=float, default=60.0)
    parser.add_argument("--rows", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    with rig(arguments.backend) as servers:
        try:
            found = measured(servers, arguments.kills, arguments.rate, arguments.rows, arguments.seed)
        except BaseException:
            subprocess.run(["tail", "-c", "3000", str(servers.folder / "ingestor.log")], stdout=sys.stderr, check=False)
            raise
    print(json.dumps(found, indent=1))  # noqa: T201 - the result


if __name__ == "__main__":
    main()
