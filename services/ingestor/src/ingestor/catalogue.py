"""The collections that the domains declare: what each holds, who answers for it, who may see it, how it is cut."""

import datetime as dt
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from knowledge.chunking import CHUNKER, check_chunker
from knowledge.schema import Kind

_REQUIRED = ("name", "kind", "path", "owner", "review_date", "licence")
_NAME = re.compile(r"[a-z][a-z0-9-]*")
_LABEL = re.compile(r"[a-z][a-z0-9_]*")
_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]*")


class CatalogueError(OSError):
    """Raised at start when a domain declares a collection that cannot be kept."""


@dataclass(frozen=True)
class GitSource:
    """Where in a repository the documents are; `per_day` takes the last commit of each day (UTC) alone."""

    inside: str = ""
    ref: str = "HEAD"
    per_day: bool = False


@dataclass(frozen=True)
class Collection:
    """One declared collection; `labels` hold for documents that name none."""

    name: str
    kind: Kind
    path: Path
    owner: str
    review_date: str
    licence: str
    labels: tuple[str, ...]
    chunker: str = CHUNKER
    # Days that closed versions of fluid documents stay readable as of then; None takes the service's setting.
    history_days: int | None = None
    # Longest time from a change in the source until it is found; None promises nothing.
    freshness_sla_seconds: float | None = None
    # The path is a repository and its history the versions.
    git: GitSource | None = None
    # How it is searched; retriever reads it.
    ranking: dict[str, Any] | None = None


def load(domains_dir: Path) -> dict[str, Collection]:
    """Return the collections of all domains by name; raise CatalogueError for one that is declared wrongly."""
    collections: dict[str, Collection] = {}
    for file in sorted(domains_dir.glob("*/domain.yaml")):
        content = yaml.safe_load(file.read_text()) or {}
        for number, entry in enumerate(content.get("collections") or []):
            collection = _collection(file, f"{file}: collections[{number}]", entry)
            if collection.name in collections:
                raise CatalogueError(f"{file}: collection {collection.name!r} is declared twice")
            collections[collection.name] = collection
    return collections


def _collection(file: Path, where: str, entry: Mapping[str, Any]) -> Collection:
    for name in _REQUIRED:
        if entry.get(name) in {None, ""}:
            raise CatalogueError(f"{where} lacks {name!r}")
    known = {*_REQUIRED, *_READERS}
    if unknown := sorted(set(entry) - known):
        raise CatalogueError(f"{where} has unknown settings {unknown}; known: {sorted(known)}")
    values: dict[str, Any] = {}
    for name in sorted(known & set(entry)):
        try:
            values[name] = _READERS.get(name, str)(entry[name])
        except (ValueError, TypeError) as error:
            raise CatalogueError(f"{where}.{name}: {error}") from error
    path = file.parent / values["path"]
    if not path.exists():
        raise CatalogueError(f"{where}.path {entry['path']!r} does not exist")
    if values.get("git") and values["kind"] is not Kind.ANCHORED:
        raise CatalogueError(f"{where}.git: only an anchored collection has versions to take from a history")
    return Collection(**{"labels": (), **values, "path": path})


def _kind(value: object) -> Kind:
    try:
        return Kind(str(value))
    except ValueError as error:
        raise ValueError(f"{error}; known: {[kind.value for kind in Kind]}") from error


def _matching(pattern: re.Pattern[str]) -> Callable[[object], str]:
    def read(value: object) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value) or ".." in value:
            raise ValueError(f"{value!r} does not match {pattern.pattern}")
        return value

    return read


def _date(value: object) -> str:
    return dt.date.fromisoformat(str(value)).isoformat()


def _labels(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError(f"must be a list, got {value!r}")
    return tuple(_matching(_LABEL)(label) for label in value)


def _positive(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise ValueError(f"must be a number above 0, got {value!r}")
    return float(value)


def _days(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"must be a number of days, 1 or more, got {value!r}")
    return value


def _mapping(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"must be a mapping, got {value!r}")
    return value


def _git(value: object) -> GitSource:
    fields: dict[str, Any] = dict(value) if isinstance(value, dict) else {"": value}
    if unknown := sorted(set(fields) - {"inside", "ref", "versions"}):
        raise ValueError(f"unknown settings {unknown}; known: ['inside', 'ref', 'versions']")
    versions = fields.get("versions", "commit")
    if versions not in {"commit", "day"}:
        raise ValueError(f"versions {versions!r}; known: ['commit', 'day']")
    inside = str(fields.get("inside") or "").strip("/")
    if inside.startswith(("-", ":")) or ".." in Path(inside).parts:
        raise ValueError(f"inside {inside!r} must be a folder or file within the repository")
    return GitSource(inside, _matching(_REF)(fields.get("ref", "HEAD")), per_day=versions == "day")


_READERS: dict[str, Callable[[Any], Any]] = {
    "name": _matching(_NAME),
    "kind": _kind,
    "review_date": _date,
    "labels": _labels,
    "chunker": check_chunker,
    "history_days": _days,
    "freshness_sla_seconds": _positive,
    "git": _git,
    "ranking": _mapping,
}
