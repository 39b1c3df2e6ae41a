"""Reads evaluation sets; whatever is malformed is named by file, row and field."""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Collection:
    """Documents, queries and judgements of one split, in BEIR's layout."""

    documents: dict[str, tuple[str, str]]
    queries: dict[str, str]
    judgements: dict[str, dict[str, int]]
    split: str


def lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield each line of a text file, compressed where its name says so, with its number; raise ValueError for what is no text."""
    opener = gzip.open if file.suffix == ".gz" else open
    number = 0
    try:
        with opener(file, "rb") as content:
            for number, line in enumerate(content, start=1):
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file.name}:{number}: not UTF-8: {error}") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{file.name}:{number + 1}: cannot be unpacked: {error}") from error


def rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each object of a file of JSON lines with where it is; raise ValueError for what is none."""
    for number, line in lines(file):
        if not line.strip():
            continue
        where = f"{file.name}:{number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"{where}: must be an object")  # noqa: TRY004 - the format's one kind of error
        yield where, row


def text(where: str, row: dict[str, Any], field: str, *, empty: bool = False) -> str:
    """Return a field that must be a text; raise ValueError when it is not."""
    value = row.get(field)
    if not isinstance(value, str) or not (value.strip() or empty):
        raise ValueError(f"{where}: field {field!r} must be a text{'' if empty else ' that is not empty'}, got {str(value)[:80]!r}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{where}: field {field!r} holds half a character at {error.start}") from error
    return value


def existing(folder: Path, name: str) -> Path:
    """Return the file of that name, or its compressed form; raise ValueError when neither is there."""
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    raise ValueError(f"{name}: not found in {folder.name!r}, neither as {name!r} nor as '{name}.gz'")


def load(folder: Path, split: str = "") -> Collection:
    """Read a folder; `split` names the judgements, by default test, dev or whatever there is."""
    documents = _by_id(
        (where, row, (title(where, row), text(where, row, "text", empty=True))) for where, row in rows(existing(folder, "corpus.jsonl"))
    )
    queries = _by_id((where, row, text(where, row, "text")) for where, row in rows(existing(folder, "queries.jsonl")))
    files = {file.name.removesuffix(".gz").removesuffix(".tsv"): file for file in sorted((folder / "qrels").glob("*.tsv*"))}
    splits = sorted(files)
    chosen = split or next((name for name in ("test", "dev", *splits) if name in splits), "")
    if chosen not in files:
        raise ValueError(f"qrels: no split {split!r}; there is {splits}")
    return Collection(documents, queries, _judgements(files[chosen], queries), chosen)


def title(where: str, row: dict[str, Any]) -> str:
    """Return the title of a row, empty where it has none."""
    return "" if row.get("title") is None else text(where, row, "title", empty=True)


def _by_id(entries: Iterable[tuple[str, dict[str, Any], T]]) -> dict[str, T]:
    """Return what the rows say by their `_id`; raise ValueError where two say different things under one."""
    found: dict[str, T] = {}
    for where, row, value in entries:
        name = text(where, row, "_id")
        if found.setdefault(name, value) != value:
            raise ValueError(f"{where}: field '_id': {name[:80]!r} is there already, with another text")
    return found


def _judgements(file: Path, queries: dict[str, str]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for number, line in lines(file):
        row, where = line.split("\t"), f"{file.name}:{number}"
        if not line or (number == 1 and row[0] == "query-id"):
            continue
        if len(row) != 3:
            raise ValueError(f"{where}: field 'score': a row has query-id, corpus-id and score, got {len(row)} values")
        if row[0] not in queries:
            raise ValueError(f"{where}: field 'query-id': {row[0][:80]!r} is not in the queries")
        try:
            score = int(row[2])
        except ValueError as error:
            raise ValueError(f"{where}: field 'score' must be a whole number, got {row[2][:80]!r}") from error
        if score > 0:
            found.setdefault(row[0], {})[row[1]] = score
    return found
