"""The suites `retrieval` and `asof` of `strata eval`: the product's own search over sets that it has never seen."""

import asyncio
import datetime as dt
import resource
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from knowledge.chunking import check_chunker
from retriever import beir, metrics
from retriever.bench import Bench, Version, document
from retriever.judging import Run, judge
from retriever.retrieval import LEGS
from retriever.scratch import Scratch, scratch
from retriever.variation import chunkers, searches

_MODES: dict[str, Sequence[str]] = {"bm25": ("lexical",), "dense": ("vector",), "fusion": LEGS}
_ASOF_CONSIDERED = 5


def retrieval(data: Path, *, options: dict[str, str]) -> dict[str, object]:
    """Score the search on a folder in BEIR's layout.

    Options: `split`, `ablate`, `threads`, `cache` (a file that keeps vectors between runs), `chunkers` (those that are compared,
    or `none`), `hypotheses` (a file of texts that answers might read like), and those of `scratch`, which name the engine.

    Raises:
        ValueError: Malformed input, named by file, row and field.
    """
    collection = beir.load(data, options.get("split", ""))
    scored = {name: judged for name, judged in collection.judgements.items() if judged.keys() & collection.documents.keys()}
    versions = [Version(document(name, *parts)) for name, parts in collection.documents.items()]
    with scratch(options) as place:
        bench = _bench(place, versions, options)
        run = judge(collection.queries, scored, bench.rank)
        compared = _ablation(bench, collection, scored, run, options, versions, place) if _asked(options, "ablate") else {}
    return {
        "suite": "retrieval",
        "split": collection.split,
        "n": len(scored),
        "invalid": len(collection.judgements) - len(scored),
        **run.summary(),
        **compared,
        "documents": len(versions),
        "indexed_s": round(bench.indexed_seconds, 1),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "versions": bench.describe(),
    }


def asof(data: Path, *, options: dict[str, str]) -> dict[str, object]:
    """Score which version comes first for questions about a time; `data` is a file beside `documents.jsonl`.

    Options: `threads`, `cache`, `ablate`, `chunkers`, and those of `scratch`, which name the engine.

    Raises:
        ValueError: Malformed input, named by file, row and field.
    """
    if not data.is_file():
        raise ValueError(f"{data.name}: must be a file of questions beside 'documents.jsonl'")
    versions = _versions(beir.existing(data.parent, "documents.jsonl"))
    questions = list(_questions(data))
    names = {(version.document.document_id, version.document.version) for version in versions}
    scored = [question for question in questions if (question["doc_id"], question["version"]) in names]
    with scratch(options) as place:
        bench = _bench(place, versions, options)
        run = asyncio.run(_ask(bench, scored))
        compared: dict[str, object] = {}
        if _asked(options, "ablate"):
            build = partial(_bench_of, place, versions, options)
            named = options.get("chunkers", "")
            compared = {"chunkers": chunkers(named, versions, build, lambda b: asyncio.run(_ask(b, scored)), run, "version_accuracy")}
    return {
        "suite": "asof",
        "n": len(scored),
        "invalid": len(questions) - len(scored),
        **run.summary(),
        **compared,
        "documents": len(versions),
        "indexed_s": round(bench.indexed_seconds, 1),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "versions": bench.describe(),
    }


def _bench(place: Scratch, versions: Sequence[Version], options: Mapping[str, str], chunker: str = "") -> Bench:
    cache = Path(options["cache"]) if options.get("cache") else None
    if cache is None and _asked(options, "ablate"):
        # Chunks that several chunkers make are embedded once.
        cache = place.folder / "vectors.sqlite"
    create = partial(place.create, chunker or "default")
    return Bench(create, versions, threads=int(options.get("threads", "2")), cache=cache, chunker=chunker)


def _bench_of(place: Scratch, versions: Sequence[Version], options: Mapping[str, str], chunker: str) -> Bench:
    return _bench(place, versions, options, check_chunker(chunker))


def _asked(options: Mapping[str, str], name: str) -> bool:
    return options.get(name, "").lower() not in {"", "0", "false", "no"}


def _ablation(
    bench: Bench,
    collection: beir.Collection,
    scored: Mapping[str, Mapping[str, int]],
    run: Run,
    options: Mapping[str, str],
    versions: Sequence[Version],
    place: Scratch,
) -> dict[str, object]:
    """Return the metrics of each leg, of each option of a search and of each chunker, held against the search as served."""
    alone = {mode: judge(collection.queries, scored, partial(bench.rank, legs=legs, rerank=False)) for mode, legs in _MODES.items()}
    alone["rrf"] = judge(collection.queries, scored, partial(bench.rank, rerank=False, fusion="rrf"))
    build = partial(_bench_of, place, versions, options)
    named = options.get("chunkers", "")
    return {
        "ablation": {mode: metrics.summary(other.rows) for mode, other in alone.items()},
        "served_minus": {mode: metrics.difference(run.rows, other.rows, "ndcg@10") for mode, other in alone.items()},
        "searches": searches(bench, collection.queries, scored, run, options.get("hypotheses", "")),
        "chunkers": chunkers(named, versions, build, lambda b: judge(collection.queries, scored, b.rank), run, "ndcg@10"),
    }


async def _ask(bench: Bench, questions: Sequence[Mapping[str, Any]]) -> Run:
    run, began = Run(), time.perf_counter()
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
        date, title = _date(where, row, "effective_from"), beir.title(where, row)
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
        return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)
    except (ValueError, OverflowError) as error:
        # Near the first or the last year a zone leads out of the calendar.
        raise ValueError(f"{where}: field {field_name!r} must be a date, got {value!r}") from error
