# ruff: noqa: INP001 - a script
"""Our fusion and OpenSearch's normalization processor over one index and one set of judgements, query by query.

    python services/retriever/bench/bench_fusion.py --data FOLDER --split dev [--cache VECTORS.sqlite]

The cluster is the one that STRATA_TEST_OPENSEARCH_URL names. Prints one line of JSON: metrics of the search as served, of our fusion
without reranking and of the engine's own hybrid query, both by scores (min-max) and by places (reciprocal rank fusion), all with candidates
of a hundred from each leg, and paired differences to our min-max and to the engine's.
"""

import argparse
import asyncio
import datetime as dt
import json
import os
import secrets
import sys
from base64 import b64decode
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3] / "libs/knowledge/bench"))
import bench_backends as load

from encoders import Encoder
from encoders.encoder import Vectors
from encoders.vector_cache import VectorCache
from knowledge.opensearch import OpenSearchIndex
from knowledge.opensearch_client import Connection, OpenSearchSettings
from knowledge.payload import unpack
from knowledge.visibility import Visibility
from retriever import beir, metrics
from retriever.bench import Bench, Version, document
from retriever.fusion import Candidate
from retriever.judging import judge
from retriever.retrieval import Found
from testkit.opensearch import running_opensearch


def theirs(connection: Connection, own: str, encoder: Any, *, places: bool = False) -> Any:
    """Return the engine's own search in the form that is judged."""

    def ask(query: str, vector: Vectors, at: dt.datetime) -> Found:
        visible = Visibility("eval", frozenset(), ("eval",), at)
        hits = load.theirs(connection, own, load.Query(query, vector, visible), places=places)["hits"]["hits"]
        chunks = [(unpack(b64decode(hit["fields"]["payload"][0] + "==")), float(hit["_score"])) for hit in hits]
        return Found([Candidate(chunk, score, 0.0, 0.0) for chunk, score in chunks], {})

    async def search(query: str, at: dt.datetime) -> Found:
        # The file of vectors belongs to the thread that opened it.
        return await asyncio.to_thread(ask, query, encoder.encode([query])[0], at)

    return search


def main() -> None:
    """Index the collection, ask each query in three ways, and delete the index."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder in BEIR's layout")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--cache", type=Path, help="file that keeps vectors")
    arguments = parser.parse_args()
    node, own = running_opensearch(), f"eval-{secrets.token_hex(4)}"
    if node is None:
        parser.error("name a cluster in STRATA_TEST_OPENSEARCH_URL")
    names = {"url": node.url, "ca_file": node.ca_file, "user": node.user, "password_file": node.password_file}
    connection = Connection(OpenSearchSettings(search_seconds=30, **names))
    collection = beir.load(arguments.data, arguments.split)
    scored = {name: judged for name, judged in collection.judgements.items() if judged.keys() & collection.documents.keys()}
    versions = [Version(document(name, *parts)) for name, parts in collection.documents.items()]
    load_before = os.getloadavg()[0]
    try:
        bench = Bench(lambda _: OpenSearchIndex.create(connection, own), versions, threads=1, cache=arguments.cache)
        loaded = Encoder.load(threads=1)
        encoder = VectorCache(loaded, arguments.cache) if arguments.cache else loaded
        ways = {
            "served": bench.rank,
            "ours": partial(bench.rank, rerank=False),
            "ours_rrf": partial(bench.rank, rerank=False, fusion="rrf"),
            "theirs": theirs(connection, own, encoder),
            "theirs_rrf": theirs(connection, own, encoder, places=True),
        }
        runs = {name: judge(collection.queries, scored, search) for name, search in ways.items()}
    finally:
        connection.call("DELETE", f"/strata-*-{own}-*", seconds=60)
    minus = {
        f"{name}_minus_{other}": metrics.difference(runs[name].rows, runs[other].rows, "ndcg@10")
        for name, other in (("served", "theirs"), ("ours", "theirs"), ("ours", "ours_rrf"), ("theirs", "theirs_rrf"))
    }
    every = {name: metrics.summary(run.rows) for name, run in runs.items()}
    line = {"split": collection.split, "n": len(scored), "load_before": round(load_before, 1), **every, "differences": minus}
    print(json.dumps(line))  # noqa: T201 - its output


if __name__ == "__main__":
    main()
