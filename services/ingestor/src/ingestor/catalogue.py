"""The collections that the domains declare: what each holds, who answers for it, who may see it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from knowledge.schema import Kind


class CatalogueError(OSError):
    """Raised at start when a domain declares a collection that cannot be kept."""


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


def load(domains_dir: Path) -> dict[str, Collection]:
    """Return the collections of all domains by name; raise CatalogueError for one that is declared wrongly."""
    collections: dict[str, Collection] = {}
    for file in sorted(domains_dir.glob("*/domain.yaml")):
        content = yaml.safe_load(file.read_text()) or {}
        for number, entry in enumerate(content.get("collections") or []):
            collection = _collection(file, number, entry)
            if collection.name in collections:
                raise CatalogueError(f"{file}: collection {collection.name!r} is declared twice")
            collections[collection.name] = collection
    return collections


def _collection(file: Path, number: int, entry: Mapping[str, Any]) -> Collection:
    try:
        kind = Kind(entry["kind"])
        path = file.parent / entry["path"]
        if not path.exists():
            raise CatalogueError(f"{file}: collections[{number}].path {entry['path']!r} does not exist")
        return Collection(
            name=entry["name"],
            kind=kind,
            path=path,
            owner=entry["owner"],
            review_date=str(entry["review_date"]),
            licence=entry["licence"],
            labels=tuple(entry.get("labels") or ()),
        )
    except KeyError as error:
        raise CatalogueError(f"{file}: collections[{number}] lacks {error.args[0]!r}") from error
    except ValueError as error:
        raise CatalogueError(f"{file}: collections[{number}].kind: {error}; known: {[kind.value for kind in Kind]}") from error
