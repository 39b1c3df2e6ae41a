"""Reads the files of a collection: JSON lines, pages and documents of every format, dated versions, a git history."""

import datetime as dt
import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from chassis.errors import InvalidArgumentError, ServiceError
from ingestor import admission, git_history
from ingestor.catalogue import Collection, GitSource
from ingestor.git_history import HistoryError, Revision
from ingestor.parsing import front_matter
from ingestor.parsing.isolated import DocumentError, DocumentParser
from ingestor.parsing.parsed import Parsed, UnparsableError
from ingestor.parsing.sniffing import SUFFIXES
from knowledge.schema import Document, Kind

_LINES = (".jsonl", ".jsonl.gz")
_SIDECAR = ".meta.yaml"
_DATED = re.compile(r"(?:(?P<name>.+)@)?(?P<date>\d{4}-\d{2}-\d{2})")
_FIELDS = frozenset({
    "id", "title", "version", "effective_from", "expires_at", "labels", "metadata", "tenant", "url", "source", "licence", "review_date",
})  # fmt: skip
_GIT_SECONDS = 300.0
# JSON writes a character in up to twelve, and there are other fields.
_LINE_FACTOR = 8


class SourceError(InvalidArgumentError):
    """A document in a file cannot be read; the message names file, row and field."""


def read(collection: Collection, parser: DocumentParser | None = None) -> Iterator[Document | ServiceError]:
    """Yield every document of the collection, or why it cannot be one, in a fixed order."""
    reader = parser or DocumentParser()
    try:
        if collection.git is not None:
            yield from _history(collection, collection.git, reader)
        else:
            yield from _files(collection, reader)
    finally:
        if parser is None:
            reader.close()


def _files(collection: Collection, parser: DocumentParser) -> Iterator[Document | ServiceError]:
    root = collection.path
    files = sorted(part for part in root.rglob("*") if part.is_file()) if root.is_dir() else [root]
    home = root.resolve() if root.is_dir() else root.resolve().parent
    seen: dict[tuple[str, str], str] = {}
    for file in files:
        name = str(file.relative_to(root)) if root.is_dir() else file.name
        if any(part.startswith(".") for part in PurePosixPath(name).parts):
            continue
        if name != (shown := _shown(name)):
            yield SourceError(f"{shown}: its name is not UTF-8", code="unreadable_document")
        elif not file.resolve().is_relative_to(home):
            yield SourceError(f"{name}: leads out of the folder of the collection")
        elif name.endswith(_LINES):
            yield from _lines(collection, file, parser.limits.text_characters)
        elif name.endswith(_SIDECAR):
            if not file.with_name(file.name.removesuffix(_SIDECAR)).is_file():
                yield SourceError(f"{name}: there is no file {file.name.removesuffix(_SIDECAR)!r} that it could describe")
        else:
            entry = _file(collection, file, name, parser)
            if isinstance(entry, Document):
                key = (entry.key, entry.version or str(entry.effective_from))
                if (other := seen.setdefault(key, name)) != name:
                    entry = SourceError(f"{name}: the same document and version as {other}; give one an 'id' or a 'version'")
            yield entry


def _file(collection: Collection, file: Path, name: str, parser: DocumentParser) -> Document | ServiceError:
    try:
        if (size := file.stat().st_size) > parser.limits.file_bytes:
            return DocumentError(f"{name}: has {size} bytes; the limit is {parser.limits.file_bytes}", code="document_too_large")
        sidecar = file.with_name(file.name + _SIDECAR)
        beside = front_matter.fields(sidecar.read_text(encoding="utf-8")) if sidecar.is_file() else {}
        if unknown := sorted(set(beside) - _FIELDS):
            return SourceError(f"{name}{_SIDECAR}: unknown fields {unknown}; known: {sorted(_FIELDS)}")
        parsed = parser.parse(file.read_bytes(), name)
    except (OSError, UnicodeDecodeError) as error:
        return SourceError(f"{name}: cannot be read: {error}")
    except UnparsableError as error:
        return SourceError(f"{name}{_SIDECAR}: {error}", code=error.code)
    except ServiceError as error:
        return error
    return page(collection, name, parsed, {**_dated(collection, name), **parsed.fields, **beside})


def _dated(collection: Collection, name: str) -> dict[str, Any]:
    """Return what a path says of its document: `<document>/<date>.md` and `<document>@<date>.md` are dated versions."""
    path = PurePosixPath(name).with_suffix("")
    match = _DATED.fullmatch(path.name) if collection.kind is Kind.ANCHORED else None
    if match and (match["name"] or len(path.parts) > 1):
        document = path.with_name(match["name"]) if match["name"] else path.parent
        return {"id": str(document), "version": match["date"], "effective_from": match["date"]}
    return {"id": str(path)}


def page(collection: Collection, where: str, parsed: Parsed, row: Mapping[str, Any]) -> Document | SourceError:
    """Return a parsed file as a document; `row` holds the fields that are declared for it."""
    for name in set(row) - _FIELDS:
        # Other tools keep fields of their own in a front matter; one that is nearly ours is a slip with consequences.
        if meant := get_close_matches(name, _FIELDS, 1, 0.8):
            return SourceError(f"{where}: unknown field {name!r}; is {meant[0]!r} meant?")
    metadata = row.get("metadata") or {}
    if isinstance(metadata, dict):
        try:
            review = {"review_date": f"{_date(row, 'review_date'):%Y-%m-%d}"} if row.get("review_date") else {}
        except ValueError as error:
            return SourceError(f"{where}: {error}")
        metadata = {**parsed.metadata, **review, **metadata}
    title = row.get("title") or parsed.title
    return _document(collection, where, {"source": where, **row, "title": title, "text": parsed.text, "metadata": metadata})


def _history(collection: Collection, git: GitSource, parser: DocumentParser) -> Iterator[Document | ServiceError]:
    try:
        history = git_history.revisions(collection.path, git.inside, git.ref, per_day=git.per_day, timeout_seconds=_GIT_SECONDS)
        # Pictures and programs beside the pages of a repository are not meant.
        found = [revision for revision in history if PurePosixPath(revision.path).suffix.lower() in SUFFIXES]
        texts = git_history.contents(
            collection.path, [entry.blob for entry in found], largest=parser.limits.file_bytes, timeout_seconds=_GIT_SECONDS
        )
        for revision, (_, data) in zip(found, texts, strict=True):
            yield _revision(collection, revision, data, parser)
    except HistoryError as error:
        yield SourceError(f"{collection.path.name}: {error}")


def _revision(collection: Collection, revision: Revision, data: bytes | None, parser: DocumentParser) -> Document | ServiceError:
    where = f"{_shown(revision.path)}@{revision.commit[:12]}"
    if data is None:
        return DocumentError(f"{where}: is larger than {parser.limits.file_bytes} bytes", code="document_too_large")
    try:
        parsed = parser.parse(data, revision.path)
    except ServiceError as error:
        return SourceError(f"{where}: {error}", code=error.code)
    own = {"id", "version", "effective_from", "expires_at"}
    described = {name: value for name, value in parsed.fields.items() if name not in own}
    row = {
        **described,
        "id": str(PurePosixPath(revision.name).with_suffix("")),
        "version": revision.commit[:12],
        "effective_from": revision.at.isoformat(),
        "expires_at": revision.removed_at.isoformat() if revision.removed_at else None,
    }
    return page(collection, where, parsed, row)


def _lines(collection: Collection, file: Path, characters: int) -> Iterator[Document | SourceError]:
    opener, longest = gzip.open if file.suffix == ".gz" else open, _LINE_FACTOR * characters
    try:
        with opener(file, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(iter(partial(lines.readline, longest + 1), ""), start=1):
                if len(line) > longest:
                    # What a few bytes unpack to may be larger than the memory; where the next line begins is not looked for.
                    yield SourceError(f"{file.name}:{number}: has more than {longest} characters", code="document_too_large")
                    return
                if line.strip():
                    yield _line(collection, f"{file.name}:{number}", line)
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        yield SourceError(f"{file.name}: cannot be read as text: {error}")


def _line(collection: Collection, where: str, line: str) -> Document | SourceError:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return SourceError(f"{where}: not JSON: {error}")
    if not isinstance(row, dict):
        return SourceError(f"{where}: must be an object")
    return _document(collection, where, row)


def _document(collection: Collection, where: str, row: Mapping[str, Any]) -> Document | SourceError:
    for name in ("id", "title", "text"):
        if not isinstance(row.get(name), str) or not row[name].strip():
            return SourceError(f"{where}: field {name!r} must be a text that is not empty")
    metadata, labels = row.get("metadata") or {}, row.get("labels") or ()
    if not isinstance(metadata, dict):
        return SourceError(f"{where}: field 'metadata' must be an object")
    if not isinstance(labels, list | tuple) or not all(isinstance(label, str) for label in labels):
        return SourceError(f"{where}: field 'labels' must be a list of texts")
    try:
        document = Document(
            collection=collection.name,
            kind=collection.kind,
            document_id=row["id"],
            title=row["title"],
            text=row["text"],
            version=str(row.get("version") or ""),
            effective_from=_date(row, "effective_from"),
            expires_at=_date(row, "expires_at"),
            tenant=str(row.get("tenant") or ""),
            labels=tuple(labels) or collection.labels,
            metadata={name: _plain(value) for name, value in metadata.items()},
            source=str(row.get("url") or row.get("source") or ""),
            licence=str(row.get("licence") or collection.licence),
            chunker=collection.chunker,
        )
        admission.check_characters(document)
    except (ValueError, RecursionError) as error:
        return SourceError(f"{where}: {error}")
    except InvalidArgumentError as error:
        return SourceError(f"{where}: {error}", code=error.code)
    return document


def _shown(name: str) -> str:
    """Return a path with what is not UTF-8 in it written out."""
    return name.encode(errors="backslashreplace").decode()


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _date(row: Mapping[str, Any], name: str) -> dt.datetime | None:
    value = row.get(name)
    if value is None or value == "":
        return None
    try:
        moment = dt.datetime.fromisoformat(str(value))
        return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)
    except (ValueError, OverflowError) as error:
        # Near the first or the last year a zone leads out of the calendar.
        raise ValueError(f"field {name!r} must be a date, got {str(value)[:80]!r}") from error
