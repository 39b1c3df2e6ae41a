"""Rows of `--ablate` beside the legs: each way to search a message, and each way to cut the documents."""

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from knowledge.chunking import CHUNKER, LONGEST_WORDS
from retriever import beir, metrics
from retriever.bench import Bench, Version
from retriever.judging import Run, Search, judge
from retriever.options import Options
from retriever.queries import REWRITES, rewritten
from retriever.retrieval import Found

Queries = Mapping[str, str]
Judged = Mapping[str, Mapping[str, int]]

_OTHERS = ("structural-180-v2", "sentence-window-8-2-v1", "semantic-180-v1")
_PARTS = 4
# Quality is judged whatever it takes; the latency is in the row.
_UNHURRIED_MS = 60_000.0
# A chunker makes no difference to documents that are one chunk, and each one embeds everything again.
_LONG_SHARE, _MOST_WORDS = 0.1, 500_000


def searches(bench: Bench, queries: Queries, judged: Judged, plain: Run, hypotheses: str = "") -> dict[str, object]:
    """Return a row for each option of a search, and by how much it is better than the search without, query by query.

    `hypotheses` names a file of JSON lines `{_id, text}`; the row `hyde` is over the queries that it has.
    """
    rows: dict[str, object] = {}
    for how in REWRITES:
        rows[f"rewritten_{how}"] = _row(judge(queries, judged, _rewriting(bench, how)), plain)
    rows["multi_query"] = _row(judge(queries, judged, _with(bench, Options(parts=_PARTS, variants_ms=_UNHURRIED_MS))), plain)
    if hypotheses:
        texts = {beir.text(where, row, "_id"): beir.text(where, row, "text") for where, row in beir.rows(Path(hypotheses))}
        by_query = {queries[name]: text for name, text in texts.items() if name in queries}
        few = {name: relevant for name, relevant in judged.items() if name in texts}

        async def guessed(query: str, at: dt.datetime) -> Found:
            return await bench.find(query, at, Options(hypotheses=(by_query[query],), variants_ms=_UNHURRIED_MS))

        rows["hyde"] = {"n": len(few), **_row(judge(queries, few, guessed), judge(queries, few, _with(bench, Options())))}
    return rows


def chunkers(
    named: str, versions: Sequence[Version], build: Callable[[str], Bench], score: Callable[[Bench], Run], plain: Run, metric: str
) -> dict[str, object]:
    """Return a row for each other chunker and by how much it is better than the default one.

    `named` is `none`, chunkers separated by commas, or empty for all where documents are long and not too many.
    """
    if not named:
        words = [len(version.document.text.split()) for version in versions]
        if sum(count > LONGEST_WORDS for count in words) < _LONG_SHARE * len(words):
            return {"skipped": f"fewer than {_LONG_SHARE:.0%} of the documents are longer than one chunk"}
        if sum(words) > _MOST_WORDS:
            return {"skipped": f"more than {_MOST_WORDS} words; name chunkers with the option 'chunkers'"}
    rows: dict[str, object] = {}
    for name in [] if named == "none" else named.split(",") if named else _OTHERS:
        bench = build(name)
        rows[name] = {"chunks": bench.chunks, "indexed_s": round(bench.indexed_seconds, 1), **_row(score(bench), plain, metric)}
    return {"default": CHUNKER, **rows}


def _with(bench: Bench, options: Options) -> Search:
    async def search(query: str, at: dt.datetime) -> Found:
        return await bench.find(query, at, options)

    return search


def _rewriting(bench: Bench, how: str) -> Search:
    async def search(query: str, at: dt.datetime) -> Found:
        return await bench.rank(rewritten(query, how), at)

    return search


def _row(run: Run, plain: Run, metric: str = "ndcg@10") -> dict[str, object]:
    return {
        **metrics.summary(run.rows),
        "minus_plain": metrics.difference(run.rows, plain.rows, metric),
        "latency_ms": metrics.latency(run.milliseconds),
    }
