"""The suites `retrieval` and `asof` of `strata eval`: the product's own search over sets that it has never seen."""

import asyncio
import datetime as dt
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retriever import beir, metrics
from retriever.bench import Bench, Version, document
from retriever.retrieval import LEGS, Found

_MODES: dict[str, Sequence[str]] = {"bm25": ("lexical",), "dense": ("vector",), "fusion": LEGS}
_ASOF_CONSIDERED = 5


@dataclass
class _Run:
    """What queries brought and how long they took."""

    rows: list[dict[str, float]] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)
    seconds: float = 0.0
    parts: dict[str, list[float]] = field(default_factory=dict)
    rerank: Counter[str] = field(default_factory=Counter)

    def took(self, found: Found, started: float) -> None:
        """Note how long a query took, its parts, and whether it was reranked."""
        self.milliseconds.append((time.perf_counter() - started) * 1000)
        self.rerank[found.rerank] += 1
        for part, milliseconds in found.latency_ms.items():
            self.parts.setdefault(part, []).append(milliseconds)

    def summary(self) -> dict[str, object]:
        """Return the metrics with their intervals, latency and throughput."""
        rate = round(len(self.rows) / self.seconds, 1) if self.seconds else 0.0
        return {
            **metrics.summary(self.rows),
            "latency_ms": metrics.latency(self.milliseconds),
            "latency_parts_ms": {part: metrics.latency(values) for part, values in self.parts.items()},
            "throughput_per_s": rate,
            "rerank": dict(self.rerank),
        }


def retrieval(data: Path, *, options: dict[str, str]) -> dict[str, object]:
    """Score the search on a folder in BEIR's layout.

    Options: `split`, `ablate`, `threads`, and `cache`, a file that keeps vectors between runs.

    Raises:
        ValueError: Malformed input, named by file, row and field.
    """
    collection = beir.load(data, options.get("split", ""))
    scored = {name: judged for name, judged in collection.judgements.items() if judged.keys() & collection.documents.keys()}
    versions = [Version(document(name, *parts)) for name, parts in collection.documents.items()]
    with tempfile.TemporaryDirectory() as folder:
        bench = _bench(Path(folder), versions, options)
        run = asyncio.run(_rank(bench, collection.queries, scored, LEGS, rerank=True))
        alone = {
            mode: asyncio.run(_rank(bench, collection.queries, scored, legs, rerank=False))
            for mode, legs in _MODES.items()
            if _asked(options, "ablate")
        }
    return {
        "suite": "retrieval",
        "split": collection.split,
        "n": len(scored),
        "invalid": len(collection.judgements) - len(scored),
        **run.summary(),
        **(_compared(run, alone) if alone else {}),
        "documents": len(versions),
        "indexed_s": round(bench.indexed_seconds, 1),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "versions": bench.describe(),
    }


def asof(data: Path, *, options: dict[str, str]) -> dict[str, object]:
    """Score which version comes first for questions about a time; `data` is a file beside `documents.jsonl`.

    Options: `threads`, `cache`.

    Raises:
        ValueError: Malformed input, named by file, row and field.
    """
    versions = _versions(beir.existing(data.parent, "documents.jsonl"))
    questions = list(_questions(data))
    names = {(version.document.document_id, version.document.version) for version in versions}
    scored = [question for question in questions if (question["doc_id"], question["version"]) in names]
    with tempfile.TemporaryDirectory() as folder:
        bench = _bench(Path(folder), versions, options)
        run = asyncio.run(_ask(bench, scored))
    return {
        "suite": "asof",
        "n": len(scored),
        "invalid": len(questions) - len(scored),
        **run.summary(),
        "documents": len(versions),
        "indexed_s": round(bench.indexed_seconds, 1),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "versions": bench.describe(),
    }


def _bench(folder: Path, versions: Sequence[Version], options: Mapping[str, str]) -> Bench:
    cache = Path(options["cache"]) if options.get("cache") else None
    return Bench(folder, versions, threads=int(options.get("threads", "2")), cache=cache)


def _asked(options: Mapping[str, str], name: str) -> bool:
    return options.get(name, "").lower() not in {"", "0", "false", "no"}


def _compared(run: _Run, alone: Mapping[str, _Run]) -> dict[str, object]:
    """Return each part's own metrics, and by how much the search as served is better than each, query by query."""
    return {
        "ablation": {mode: metrics.summary(other.rows) for mode, other in alone.items()},
        "served_minus": {mode: metrics.difference(run.rows, other.rows, "ndcg@10") for mode, other in alone.items()},
    }


async def _rank(
    bench: Bench, queries: Mapping[str, str], judged: Mapping[str, Mapping[str, int]], legs: Sequence[str], *, rerank: bool
) -> _Run:
    run, began, now = _Run(), time.perf_counter(), dt.datetime.now(dt.UTC)
    for name, relevant in judged.items():
        started = time.perf_counter()
        found = await bench.rank(queries[name], now, legs, rerank=rerank)
        run.took(found, started)
        # The first, and so the best, chunk of a document gives its place.
        ranked = list(dict.fromkeys(candidate.chunk.document_id for candidate in found.passages))
        run.rows.append(metrics.scores(ranked, relevant))
    run.seconds = time.perf_counter() - began
    return run


async def _ask(bench: Bench, questions: Sequence[Mapping[str, Any]]) -> _Run:
    run, began = _Run(), time.perf_counter()
    for question in questions:
        started = time.perf_counter()
        found = await bench.rank(question["query"], question["as_of"])
        run.took(found, started)
        first = [(c.chunk.document_id, c.chunk.version) for c in found.passages[:_ASOF_CONSIDERED]]
        right = (question["doc_id"], question["version"])
        leaked = any(name == right[0] and version != right[1] for name, version in first)
        run.rows.append({"version_accuracy": float(first[:1] == [right]), "superseded_leak_rate": float(leaked)})
    run.seconds = time.perf_counter() - began
    return run


def _versions(file: Path) -> list[Version]:
    """Read all versions of all documents; each ends where the next of its document begins."""
    read: dict[str, list[tuple[dt.datetime, str, str, str]]] = {}
    for where, row in beir.rows(file):
        name, version = beir.text(where, row, "doc_id"), _name(where, row, "version")
        date, title = _date(where, row, "effective_from"), beir.text(where, {"title": "", **row}, "title", empty=True)
        history = read.setdefault(name, [])
        if any(date == other[0] or version == other[1] for other in history):
            raise ValueError(f"{where}: field 'effective_from': {name!r} has two versions named {version!r} or dated {date:%Y-%m-%d}")
        history.append((date, version, title, beir.text(where, row, "text", empty=True)))
    result: list[Version] = []
    for name, history in read.items():
        history.sort()
        ends = [*(entry[0] for entry in history[1:]), None]
        result += [
            Version(document(name, title, text, version=version, effective_from=date), end)
            for (date, version, title, text), end in zip(history, ends, strict=True)
        ]
    return result


def _questions(file: Path) -> list[dict[str, Any]]:
    return [
        {
            "query": beir.text(where, row, "query"),
            "as_of": _date(where, row, "as_of"),
            "doc_id": beir.text(where, row, "doc_id"),
            "version": _name(where, row, "version"),
        }
        for where, row in beir.rows(file)
    ]


def _name(where: str, row: Mapping[str, Any], field_name: str) -> str:
    value = row.get(field_name)
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
        raise ValueError(f"{where}: field {field_name!r} must be a text or a number, got {value!r}")
    return str(value)


def _date(where: str, row: Mapping[str, Any], field_name: str) -> dt.datetime:
    value = row.get(field_name)
    try:
        moment = dt.datetime.fromisoformat(str(value))
    except ValueError as error:
        raise ValueError(f"{where}: field {field_name!r} must be a date, got {value!r}") from error
    return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)
