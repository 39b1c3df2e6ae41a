"""Reads evaluation sets; whatever is malformed is named by file, row and field."""

import csv
import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Collection:
    """Documents, queries and judgements of one split, in BEIR's layout."""

    documents: dict[str, tuple[str, str]]
    queries: dict[str, str]
    judgements: dict[str, dict[str, int]]
    split: str


def rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each object of a file of JSON lines with where it is; raise ValueError for what is none."""
    opener = gzip.open if file.suffix == ".gz" else open
    with opener(file, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{file.name}:{number}"
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{where}: not JSON: {error}") from error
            if not isinstance(row, dict):
                raise ValueError(f"{where}: must be an object")  # noqa: TRY004 - the format's one kind of error
            yield where, row


def text(where: str, row: dict[str, Any], field: str, *, empty: bool = False) -> str:
    """Return a field that must be a text; raise ValueError when it is not."""
    value = row.get(field)
    if not isinstance(value, str) or not (value.strip() or empty):
        raise ValueError(f"{where}: field {field!r} must be a text{'' if empty else ' that is not empty'}, got {value!r}")
    return value


def existing(folder: Path, name: str) -> Path:
    """Return the file of that name, or its compressed form; raise ValueError when neither is there."""
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    raise ValueError(f"{name}: not found in {folder.name!r}, neither as {name!r} nor as '{name}.gz'")


def load(folder: Path, split: str = "") -> Collection:
    """Read a folder; `split` names the judgements, by default test, dev or whatever there is."""
    documents = {
        text(where, row, "_id"): (text(where, {"title": "", **row}, "title", empty=True), text(where, row, "text", empty=True))
        for where, row in rows(existing(folder, "corpus.jsonl"))
    }
    queries = {text(where, row, "_id"): text(where, row, "text") for where, row in rows(existing(folder, "queries.jsonl"))}
    splits = sorted(file.stem for file in (folder / "qrels").glob("*.tsv"))
    chosen = split or next((name for name in ("test", "dev", *splits) if name in splits), "")
    if chosen not in splits:
        raise ValueError(f"qrels: no split {split!r}; there is {splits}")
    return Collection(documents, queries, _judgements(folder / "qrels" / f"{chosen}.tsv", queries), chosen)


def _judgements(file: Path, queries: dict[str, str]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    with file.open(encoding="utf-8", newline="") as lines:
        for number, row in enumerate(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE), start=1):
            where = f"{file.name}:{number}"
            if not row or (number == 1 and row[0] == "query-id"):
                continue
            if len(row) != 3:
                raise ValueError(f"{where}: field 'score': a row has query-id, corpus-id and score, got {len(row)} values")
            if row[0] not in queries:
                raise ValueError(f"{where}: field 'query-id': {row[0]!r} is not in the queries")
            try:
                score = int(row[2])
            except ValueError as error:
                raise ValueError(f"{where}: field 'score' must be a whole number, got {row[2]!r}") from error
            if score > 0:
                found.setdefault(row[0], {})[row[1]] = score
    return found
