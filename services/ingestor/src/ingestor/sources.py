"""Reads the files of a collection: JSON lines, also compressed, Markdown and plain text."""

import datetime as dt
import gzip
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from chassis.errors import InvalidArgumentError
from ingestor.catalogue import Collection
from knowledge.schema import Document

_SUFFIXES = (".jsonl", ".jsonl.gz", ".md", ".txt")


class SourceError(InvalidArgumentError):
    """A document in a file cannot be read; the message names file, row and field."""


def read(collection: Collection) -> Iterator[Document | SourceError]:
    """Yield every document of the collection, or why it cannot be one, in a fixed order."""
    path = collection.path
    files = sorted(part for part in path.rglob("*") if part.is_file()) if path.is_dir() else [path]
    for file in files:
        if file.name.endswith((".jsonl", ".jsonl.gz")):
            yield from _lines(collection, file)
        elif file.suffix in {".md", ".txt"}:
            yield _page(collection, file)
        else:
            yield SourceError(f"{file.name}: unknown kind of file; known: {list(_SUFFIXES)}")


def _lines(collection: Collection, file: Path) -> Iterator[Document | SourceError]:
    opener = gzip.open if file.suffix == ".gz" else open
    try:
        with opener(file, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _line(collection, f"{file.name}:{number}", line)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        yield SourceError(f"{file.name}: cannot be read as text: {error}")


def _line(collection: Collection, where: str, line: str) -> Document | SourceError:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        return SourceError(f"{where}: not JSON: {error}")
    if not isinstance(row, dict):
        return SourceError(f"{where}: must be an object")
    return _document(collection, where, row)


def _page(collection: Collection, file: Path) -> Document | SourceError:
    """Read a page with its front matter; the heading is the title where none is given."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        return SourceError(f"{file.name}: cannot be read as text: {error}")
    row: dict[str, Any] = {}
    if text.startswith("---\n") and "\n---\n" in text:
        head, _, text = text[4:].partition("\n---\n")
        try:
            row = yaml.safe_load(head) or {}
        except yaml.YAMLError as error:
            return SourceError(f"{file.name}: front matter: {' '.join(str(error).split())}")
    first = text.lstrip().partition("\n")[0]
    row.setdefault("id", file.stem)
    row.setdefault("title", first.lstrip("# ").strip() if first.startswith("#") else file.stem)
    return _document(collection, file.name, {**row, "text": text})


def _document(collection: Collection, where: str, row: Mapping[str, Any]) -> Document | SourceError:
    for name in ("id", "title", "text"):
        if not isinstance(row.get(name), str) or not row[name].strip():
            return SourceError(f"{where}: field {name!r} must be a text that is not empty")
    metadata = row.get("metadata") or {}
    if not isinstance(metadata, dict):
        return SourceError(f"{where}: field 'metadata' must be an object")
    try:
        return Document(
            collection=collection.name,
            kind=collection.kind,
            document_id=row["id"],
            title=row["title"],
            text=row["text"],
            version=str(row.get("version") or ""),
            effective_from=_date(row, "effective_from"),
            expires_at=_date(row, "expires_at"),
            tenant=str(row.get("tenant") or ""),
            labels=tuple(row.get("labels") or collection.labels),
            metadata={name: _plain(value) for name, value in metadata.items()},
            source=str(row.get("url") or row.get("source") or ""),
            licence=str(row.get("licence") or collection.licence),
        )
    except ValueError as error:
        return SourceError(f"{where}: {error}")


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _date(row: Mapping[str, Any], name: str) -> dt.datetime | None:
    value = row.get(name)
    if value in {None, ""}:
        return None
    try:
        moment = dt.datetime.fromisoformat(str(value))
    except ValueError as error:
        raise ValueError(f"field {name!r} must be a date, got {value!r}") from error
    return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)
