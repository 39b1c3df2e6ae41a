# ruff: noqa: INP001 - a script
"""What a query costs through the service's own search, on both backends; OpenSearch's own hybrid query beside it in the same run.

    export OMP_NUM_THREADS=1  # as services have
    python services/retriever/bench/bench_search.py --texts corpus.jsonl.gz --chunks 100000 --keep FOLDER [--backend embedded] [--recall]

Indexes are those that `libs/knowledge/bench/bench_backends.py --keep FOLDER` filled. Vectors are given; where it says `encoded`, the
query is encoded as well, and then the given vector is searched. CPU time is that of this process and the node: it knows no neighbours.
"""

import argparse
import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[3] / "libs/knowledge/bench"))
import bench_backends as load

from encoders import Encoder
from encoders.encoder import Vectors
from knowledge.index import Index
from knowledge.lance import LanceIndex
from knowledge.opensearch import OpenSearchIndex
from knowledge.opensearch_client import Connection, OpenSearchSettings
from retriever.retrieval import Retrieval
from retriever.settings import RankingSettings, Settings
from retriever.weighting import RerankSettings
from testkit.opensearch import running_opensearch

TOP = 8
CALLERS, SECONDS, WARM_SECONDS = 8, 6.0, 4.0
Work = Callable[[load.Query], Awaitable[Any]]


class Given:
    """Vectors of the queries by their text; the work of encoding is done where there is an encoder."""

    def __init__(self, some: Sequence[load.Query], encoder: Encoder | None) -> None:
        """Know the vectors of these queries."""
        self._vectors = {query.text: query.vector for query in some}
        self._encoder = encoder

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return the given vectors (n, 384)."""
        if self._encoder is not None:
            # It would know the same query again, which a service rarely meets.
            self._encoder._cache.clear()  # noqa: SLF001
            self._encoder.encode(texts)
        return np.stack([self._vectors[text] for text in texts])

    def count_tokens(self, text: str) -> int:
        """Return the number of words, which nothing here asks for."""
        return len(text.split())


async def timed(work: Work, some: Sequence[load.Query], node: int) -> dict[str, float]:
    """Return p50 and p95 in milliseconds of one query after the other, and the CPU time of each."""
    taken, before = [], load.cpu_seconds(node)
    for query in some:
        started = time.perf_counter()
        await work(query)
        taken.append((time.perf_counter() - started) * 1000)
    cpu = (load.cpu_seconds(node) - before) * 1000 / len(some)
    return {"p50_ms": _round(np.percentile(taken, 50)), "p95_ms": _round(np.percentile(taken, 95)), "cpu_ms": _round(cpu)}


async def throughput(work: Work, some: Sequence[load.Query], seconds: float = SECONDS) -> float:
    """Return queries a second of eight callers at once."""
    started, done = time.perf_counter(), 0

    async def ask(caller: int) -> None:
        nonlocal done
        at = caller
        while time.perf_counter() < started + seconds:
            await work(some[at % len(some)])
            done, at = done + 1, at + CALLERS

    await asyncio.gather(*(ask(caller) for caller in range(CALLERS)))
    return _round(done / (time.perf_counter() - started))


def searching(index: Index, some: Sequence[load.Query], encoder: Encoder | None = None, *, rerank: bool = False) -> Work:
    """Return the search of the service, as it is after a request was translated."""
    ranking = RankingSettings(rerank=RerankSettings(enabled=rerank))
    retrieval = Retrieval(index, Given(some, encoder), ranking)
    return lambda query: retrieval.search(query.text, query.visible, TOP)


def own(connection: Connection, encoder: str, size: int, pool: ThreadPoolExecutor) -> Work:
    """Return the engine's own hybrid query for as many hits."""
    return lambda query: asyncio.get_running_loop().run_in_executor(pool, load.theirs, connection, encoder, query, size)


async def measure(index: Index, some: Sequence[load.Query], node: int, beside: dict[str, Work]) -> dict[str, Any]:
    """Return latency of each way to search, and throughput of ours and of the engine's, twice in turn, after all are warm."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(Settings.model_fields["threads"].default))
    ours = searching(index, some)
    ways = {"given": ours, "encoded": searching(index, some, Encoder.load(threads=2)), "reranked": searching(index, some, rerank=True)}
    every = {**ways, **beside}
    for work in every.values():
        await throughput(work, some, WARM_SECONDS)
    result: dict[str, Any] = {name: await timed(work, some, node) for name, work in every.items()}
    rates: dict[str, list[float]] = {}
    for _ in range(2):
        for name, work in {"given": ours, **beside}.items():
            rates.setdefault(name, []).append(await throughput(work, some))
    result["per_second"] = {name: _round(sum(found) / len(found)) for name, found in rates.items()}
    result["ratio"] = {name: round(result["per_second"]["given"] / result["per_second"][name], 2) for name in beside}
    return result


def recall(index: Index, some: Sequence[load.Query], files: Sequence[Path], count: int) -> dict[str, float]:
    """Return the shares of the ten and of the hundred nearest visible chunks, by exact search, that the vector leg finds."""
    chunks, matrix = list(load.corpus(files, count)), load.vectors(count)
    shares: dict[int, list[float]] = {10: [], 100: []}
    for query in some:
        seen = np.array([load.sees(chunk, query.visible) for chunk in chunks])
        order = np.argsort(-np.where(seen, matrix @ query.vector, -2.0))[: load.LIMIT]
        exact = [chunks[at].chunk_id for at in order if seen[at]]
        found = [hit.chunk.chunk_id for hit in index.nearest(query.vector, query.visible, load.LIMIT)]
        for depth, values in shares.items():
            values.append(len(set(exact[:depth]) & set(found[:depth])) / max(len(exact[:depth]), 1))
    return {f"recall_{depth}": round(float(np.mean(values)), 4) for depth, values in shares.items()}


def _round(value: float) -> float:
    return round(float(value), 1)


def main() -> None:
    """Measure what the arguments name, a line of JSON for each backend and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, action="append", required=True, help="the files that the indexes were filled with")
    parser.add_argument("--chunks", type=int, action="append", required=True, help="size of the index; repeatable")
    parser.add_argument("--backend", choices=("embedded", "opensearch"), required=True)
    parser.add_argument("--keep", type=Path, required=True, help="folder of the indexes")
    parser.add_argument("--recall", action="store_true", help="compare with exact search instead")
    arguments = parser.parse_args()
    for count in arguments.chunks:
        some = load.questions(arguments.texts, load.QUERIES)
        with contextlib.ExitStack() as stack:
            pool, node, beside = stack.enter_context(ThreadPoolExecutor(CALLERS)), 0, dict[str, Work]()
            if arguments.backend == "embedded":
                index: Index = LanceIndex.open(arguments.keep / str(count) / "knowledge", load.ENCODER)
            else:
                cluster = running_opensearch()
                if cluster is None:
                    parser.error("name a cluster in STRATA_TEST_OPENSEARCH_URL")
                names = {"url": cluster.url, "ca_file": cluster.ca_file, "user": cluster.user, "password_file": cluster.password_file}
                connection, encoder = Connection(OpenSearchSettings(search_seconds=30, **names)), f"{load.ENCODER}-{count}"
                node = int(connection.call("GET", "/_nodes/_local/process")["nodes"].popitem()[1]["process"]["id"])
                index = OpenSearchIndex.open(connection, encoder)
                beside = {f"own_{size}": own(connection, encoder, size, pool) for size in (load.LIMIT, TOP)}
            line: dict[str, Any] = {"backend": arguments.backend, "chunks": count, "load_before": _round(os.getloadavg()[0])}
            if arguments.recall:
                line |= recall(index, some, arguments.texts, count)
            else:
                line |= asyncio.run(measure(index, some, node, beside))
            print(json.dumps({**line, "load_after": _round(os.getloadavg()[0])}), flush=True)  # noqa: T201 - its output


if __name__ == "__main__":
    main()
