# ruff: noqa: INP001 - a script
"""Both backends under one load: hybrid searches at several sizes, latency, throughput and recall, OpenSearch's own fusion beside ours.

    python libs/knowledge/bench/bench_backends.py --texts corpus.jsonl.gz --chunks 10000 --chunks 100000 [--backend embedded]

Texts are those of the files, cut into passages and repeated with other beginnings when there are too few; vectors are unit
vectors in clusters, made from a seed. OpenSearch is the node of the tests, or the cluster that STRATA_TEST_OPENSEARCH_URL names.
With `--keep` a filled index stays for the next run, which then measures searches only.
"""

import argparse
import contextlib
import datetime as dt
import gzip
import json
import os
import random
import tempfile
import time
from base64 import b64decode
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from encoders.encoder import DIMENSIONS, Vectors
from knowledge import opensearch_queries as queries
from knowledge.index import Hit, Index
from knowledge.lance import LanceIndex
from knowledge.opensearch import OpenSearchIndex
from knowledge.opensearch_client import Connection, OpenSearchSettings
from knowledge.opensearch_provisioning import setup
from knowledge.opensearch_templates import read_alias
from knowledge.payload import unpack
from knowledge.preparation import cut
from knowledge.schema import Chunk, Document, Kind, label_key
from knowledge.visibility import Visibility
from testkit.opensearch import OpenSearchNode, opensearch_home, opensearch_node, running_opensearch

SEED = 11
NOW = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
ENCODER = "minilm-bench"
LIMIT = 100
COLLECTIONS = tuple(f"collection{n}" for n in range(8))
LABELS = ("public", "staff", "finance", "hr")
CLUSTERS, SPREAD = 400, 0.7
PASSAGE_WORDS = 90
QUERIES, CONCURRENT, SECONDS = 200, 8, 10.0
BUILD_SECONDS = 1800.0


@dataclass(frozen=True)
class Query:
    """A question in both forms, and who asks."""

    text: str
    vector: Vectors
    visible: Visibility


def passages(files: Sequence[Path], count: int) -> list[str]:
    """Return `count` passages of about a hundred words, in a fixed order."""
    found: list[str] = []
    for file in files:
        with gzip.open(file, "rt") if file.suffix == ".gz" else file.open() as lines:
            for line in lines:
                words = str(json.loads(line)["text"]).split()
                found += [" ".join(words[at : at + PASSAGE_WORDS]) for at in range(0, len(words), PASSAGE_WORDS) if len(words) > at + 20]
    random.Random(SEED).shuffle(found)
    made, random_ = list(found), random.Random(SEED)
    while len(made) < count:
        made.append(" ".join(random_.sample(random_.choice(found).split(), 20)) + " " + random_.choice(found))
    return made[:count]


def vectors(count: int, seed: int = SEED) -> Vectors:
    """Return unit vectors (count, 384) in clusters, as encoders make them."""
    centres = np.random.default_rng(SEED).standard_normal((CLUSTERS, DIMENSIONS)).astype(np.float32)
    generator = np.random.default_rng(seed)
    noise = generator.standard_normal((count, DIMENSIONS), dtype=np.float32)
    found = centres[generator.integers(CLUSTERS, size=count)] + SPREAD * noise
    unit: Vectors = found / np.linalg.norm(found, axis=1, keepdims=True)
    return unit


def corpus(files: Sequence[Path], count: int) -> Iterator[Chunk]:
    """Yield chunks over collections, tenants and labels, a tenth of them superseded or expired."""
    random_ = random.Random(SEED)
    for number, (text, vector) in enumerate(zip(passages(files, count), vectors(count), strict=True)):
        kind = Kind.FLUID if number % 2 else Kind.ANCHORED
        labels = tuple(random_.sample(LABELS, random_.choice((0, 0, 1, 1, 2))))
        document = Document(
            collection=random_.choice(COLLECTIONS),
            kind=kind,
            document_id=f"d{number}",
            title=" ".join(text.split()[:6]),
            text=text,
            effective_from=NOW - dt.timedelta(days=random_.randrange(1, 1000)),
            expires_at=NOW - dt.timedelta(days=1) if random_.random() < 0.05 else None,
            tenant=random_.choice(("", "", "acme", "rival")),
            labels=labels,
        )
        for chunk in cut(document, ENCODER, NOW)[:1]:
            over = NOW - dt.timedelta(hours=1) if random_.random() < 0.05 else None
            fields = {**chunk.row(), "vector": vector.tolist(), "superseded_at": over, "label_key": label_key(labels)}
            yield Chunk(**fields)


def questions(files: Sequence[Path], count: int) -> list[Query]:
    """Return queries of five to twelve words of some passage, each with a vector near a cluster and its own filter."""
    random_, found = random.Random(SEED + 1), []
    texts = passages(files, 2000)
    for vector in vectors(count, SEED + 1):
        words = random_.choice(texts).split()
        at = random_.randrange(len(words) // 2)
        some = tuple(random_.sample(COLLECTIONS, 4))
        visible = Visibility(random_.choice(("acme", "rival")), frozenset(random_.sample(LABELS, 3)), some, NOW)
        found.append(Query(" ".join(words[at : at + random_.randrange(5, 13)]), vector, visible))
    return found


def fill(index: Index, chunks: Iterator[Chunk]) -> float:
    """Store the chunks in commits of 500 and return the seconds that took."""
    started, groups = time.perf_counter(), dict[Kind, dict[str, list[Chunk]]]({kind: {} for kind in Kind})
    for chunk in chunks:
        group = groups[Kind(chunk.kind)]
        group[chunk.document_key] = [chunk]
        if len(group) == 500:
            index.replace(Kind(chunk.kind), group)
            group.clear()
    for kind, group in groups.items():
        index.replace(kind, group)
    index.tidy()
    if isinstance(index, LanceIndex):
        index.settle(BUILD_SECONDS)
    return time.perf_counter() - started


def both(index: Index, pool: ThreadPoolExecutor, query: Query) -> tuple[list[Hit], list[Hit]]:
    """Run both legs at once, as retriever does."""
    words = pool.submit(index.lexical, query.text, query.visible, LIMIT)
    near = index.nearest(query.vector, query.visible, LIMIT)
    return words.result(), near


def fused(words: Sequence[Hit], near: Sequence[Hit]) -> list[str]:
    """Return chunk ids by min-max fusion with equal weights, best first."""
    scores: dict[str, float] = {}
    for hits in (words, near):
        if hits:
            low, high = min(hit.score for hit in hits), max(hit.score for hit in hits)
            for hit in hits:
                scores[hit.chunk.chunk_id] = scores.get(hit.chunk.chunk_id, 0.0) + ((hit.score - low) / (high - low) if high > low else 1.0)
    return sorted(scores, key=lambda name: (-scores[name], name))


def timed(work: Callable[[Query], Any], some: Sequence[Query], node: int = 0) -> dict[str, float]:
    """Return p50 and p95 in milliseconds of one after the other, and CPU time of each, the node's included: it knows no neighbours."""
    for query in some[:20]:
        work(query)
    taken, before = [], cpu_seconds(node)
    for query in some:
        started = time.perf_counter()
        work(query)
        taken.append((time.perf_counter() - started) * 1000)
    cpu = round((cpu_seconds(node) - before) * 1000 / len(some), 1)
    return {"p50_ms": round(float(np.percentile(taken, 50)), 1), "p95_ms": round(float(np.percentile(taken, 95)), 1), "cpu_ms": cpu}


def cpu_seconds(node: int) -> float:
    """Return the seconds of CPU that this process and the node have used."""
    if not node:
        return time.process_time()
    fields = Path(f"/proc/{node}/stat").read_text().rpartition(")")[2].split()
    return time.process_time() + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def throughput(work: Callable[[Query], Any], some: Sequence[Query]) -> float:
    """Return searches a second of several callers at once."""
    end, done = time.perf_counter() + SECONDS, []

    def ask(caller: int) -> None:
        at = caller
        while time.perf_counter() < end:
            work(some[at % len(some)])
            done.append(1)
            at += CONCURRENT

    started = time.perf_counter()
    with ThreadPoolExecutor(CONCURRENT) as pool:
        list(pool.map(ask, range(CONCURRENT)))
    return round(len(done) / (time.perf_counter() - started), 1)


def recall(index: Index, some: Sequence[Query], chunks: Sequence[Chunk], matrix: Vectors) -> float:
    """Return the share of the hundred nearest visible chunks, by exact search, that the vector leg finds."""
    found, wanted = 0, 0
    for query in some[:50]:
        cosines = matrix @ query.vector
        seen = np.array([sees(chunk, query.visible) for chunk in chunks])
        best = {chunks[at].chunk_id for at in np.argsort(-np.where(seen, cosines, -2.0))[:LIMIT] if seen[at]}
        found += len(best & {hit.chunk.chunk_id for hit in index.nearest(query.vector, query.visible, LIMIT)})
        wanted += len(best)
    return round(found / wanted, 4)


def sees(chunk: Chunk, who: Visibility) -> bool:
    """Say by the rules whether the caller may see the chunk now."""
    allowed = not chunk.label_key or who.labels.issuperset(chunk.label_key.split(" "))
    ours = chunk.collection in who.collections and chunk.tenant in {"", who.tenant}
    return ours and allowed and chunk.superseded_at is None and chunk.expires_at is None


def measure(index: Index, some: Sequence[Query], node: int = 0) -> dict[str, Any]:
    """Return latency of each leg and of both at once, and throughput of both at once."""
    with ThreadPoolExecutor(CONCURRENT) as pool:
        return {
            "lexical": timed(lambda q: index.lexical(q.text, q.visible, LIMIT), some, node),
            "nearest": timed(lambda q: index.nearest(q.vector, q.visible, LIMIT), some, node),
            "hybrid": timed(lambda q: both(index, pool, q), some, node),
            "hybrid_per_second": throughput(lambda q: both(index, pool, q), some),
        }


def theirs(connection: Connection, encoder: str, query: Query, size: int = LIMIT, *, places: bool = False) -> Any:
    """Return the answer of OpenSearch's own hybrid query with its normalization processor; rows are read as ours are.

    `places` joins the legs by reciprocal ranks (its score ranker) instead.
    """
    words = queries.lexical(query.text, query.visible, LIMIT)
    near = queries.nearest(query.vector, query.visible, LIMIT)
    by_score = {"normalization": {"technique": "min_max"}, "combination": {"technique": "arithmetic_mean"}}
    by_place = {"combination": {"technique": "rrf", "rank_constant": 60}}
    processor = {"score-ranker-processor": by_place} if places else {"normalization-processor": by_score}
    body = {
        **{name: part for name, part in words.items() if name != "sort"},
        "size": size,
        "query": {"hybrid": {"queries": [words["query"], near["query"]], "pagination_depth": LIMIT}},
        "search_pipeline": {"phase_results_processors": [processor]},
    }
    return connection.search(",".join(read_alias(kind, encoder) for kind in Kind), body)


def first_ten(answer: Any) -> set[str]:
    """Return the chunk ids of the first ten hits."""
    return {unpack(b64decode(hit["fields"]["payload"][0] + "==")).chunk_id for hit in answer["hits"]["hits"][:10]}


def commits(index: Index, files: Sequence[Path]) -> dict[str, float]:
    """Return milliseconds of a commit of one, fifty and five hundred documents, seen when it returns."""
    some = [chunk for chunk in corpus(files, 1100) if chunk.kind == Kind.FLUID.value]
    taken = {}
    for size in (1, 50, 500):
        times = []
        for _ in range(10):
            started = time.perf_counter()
            index.replace(Kind.FLUID, {chunk.document_key: [chunk] for chunk in some[:size]})
            times.append((time.perf_counter() - started) * 1000)
        taken[f"commit_of_{size}_p50_ms"] = round(float(np.median(times)), 1)
    return taken


def on_opensearch(node: OpenSearchNode, files: Sequence[Path], count: int, folder: Path, *, keep: bool) -> dict[str, Any]:
    """Fill, measure and, unless they are kept, remove the indices of one size."""
    settings = OpenSearchSettings(url=node.url, ca_file=node.ca_file, user=node.user, password_file=node.password_file, search_seconds=30)
    connection, encoder = Connection(settings), f"{ENCODER}-{count}"
    pid = int(connection.call("GET", "/_nodes/_local/process")["nodes"].popitem()[1]["process"]["id"])
    setup(connection, folder / "credentials", encoder)
    index, some = OpenSearchIndex.create(connection, encoder), questions(files, QUERIES)
    try:
        filled = {} if any(index.versions().values()) else {"fill_seconds": round(fill(index, corpus(files, count)), 1)}
        result = {**filled, **measure(index, some, pid), "recall": recall(index, some, list(corpus(files, count)), vectors(count))}
        with ThreadPoolExecutor(CONCURRENT) as pool:
            same = [len(set(fused(*both(index, pool, q))[:10]) & first_ten(theirs(connection, encoder, q))) / 10 for q in some]
        own: dict[str, Any] = {
            "together": timed(lambda q: index.both(q.text, q.vector, q.visible, LIMIT), some, pid),
            "own_hybrid": timed(lambda q: theirs(connection, encoder, q), some, pid),
            "own_hybrid_per_second": throughput(lambda q: theirs(connection, encoder, q), some),
            "together_per_second": throughput(lambda q: index.both(q.text, q.vector, q.visible, LIMIT), some),
            "same_top_10": round(float(np.mean(same)), 3),
        }
        return {**result, **own, **({} if keep else commits(index, files))}
    finally:
        if not keep:
            connection.call("DELETE", f"/strata-*-{encoder}-*", seconds=60)


def embedded(files: Sequence[Path], count: int, folder: Path, *, keep: bool) -> dict[str, Any]:
    """Fill and measure tables of one size."""
    done, some = folder / "filled", questions(files, QUERIES)
    index = LanceIndex.create(folder / "knowledge", ENCODER)
    filled = {}
    if not done.exists():
        filled = {"fill_seconds": round(fill(index, corpus(files, count)), 1)}
        done.touch()
    found = {**filled, **measure(index, some), "recall": recall(index, some, list(corpus(files, count)), vectors(count))}
    return {**found, **({} if keep else commits(index, files))}


def main() -> None:
    """Measure what the arguments name, a line of JSON for each backend and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, action="append", required=True, help="JSON lines with a `text`, may be gzipped; repeatable")
    parser.add_argument("--chunks", type=int, action="append", required=True, help="size of the index; repeatable")
    parser.add_argument("--backend", choices=("embedded", "opensearch"), action="append", help="both without it")
    parser.add_argument("--keep", type=Path, help="folder of indexes that stay; OpenSearch's stay on a cluster that is not ours")
    arguments = parser.parse_args()
    wanted = arguments.backend or ["embedded", "opensearch"]
    with contextlib.ExitStack() as stack:
        node = running_opensearch()
        home = opensearch_home()
        if "opensearch" in wanted and node is None and home is not None:
            node = stack.enter_context(opensearch_node(home))
        for count in arguments.chunks:
            for backend in wanted:
                with tempfile.TemporaryDirectory() as temporary:
                    folder = arguments.keep / str(count) if arguments.keep else Path(temporary)
                    folder.mkdir(parents=True, exist_ok=True)
                    keep = arguments.keep is not None
                    if backend == "embedded":
                        result = embedded(arguments.texts, count, folder, keep=keep)
                    elif node is not None:
                        result = on_opensearch(node, arguments.texts, count, folder, keep=keep and not node.ours)
                    else:
                        continue
                load = round(os.getloadavg()[0], 1)
                print(json.dumps({"backend": backend, "chunks": count, "load": load, **result}), flush=True)  # noqa: T201 - its output


if __name__ == "__main__":
    main()
