"""The row of an index: a chunk of one version of one document."""

import dataclasses
import datetime as dt
import hashlib
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

LABEL_SEPARATOR = " "
# Part of the names of indices on OpenSearch; another set of columns never meets an old index.
SCHEMA_VERSION = "3"


class Kind(StrEnum):
    """How knowledge changes, which decides the index that it lives in."""

    FLUID = "fluid"
    ANCHORED = "anchored"


@dataclass(frozen=True)
class Document:
    """One version of one document as its source says it."""

    collection: str
    kind: Kind
    document_id: str
    title: str
    text: str
    version: str = ""
    effective_from: dt.datetime | None = None
    expires_at: dt.datetime | None = None
    tenant: str = ""
    labels: tuple[str, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    source: str = ""
    licence: str = ""
    # Place of the change in its source: a commit LSN, or microseconds since 1970 for what is put by hand; 0 takes now.
    position: int = 0
    # How it is cut; empty takes the default.
    chunker: str = ""

    @property
    def key(self) -> str:
        """Name of the document among all collections."""
        return document_key(self.collection, self.document_id, self.tenant)


@dataclass(frozen=True, eq=False)
class Chunk:
    """A piece of one version; `start` and `end` are characters of that version's text.

    Two time axes: valid time from `effective_from` to `superseded_at`, and the source's own from `position` to
    `closed_position`. `vector` is None until an encoder has got to it; words find the chunk before that.
    """

    chunk_id: str
    document_key: str
    document_id: str
    collection: str
    kind: str
    title: str
    text: str
    search_text: str
    vector: list[float] | None
    version: str
    effective_from: dt.datetime
    superseded_at: dt.datetime | None
    expires_at: dt.datetime | None
    withdrawn_at: dt.datetime | None
    tenant: str
    label_key: str
    metadata: list[str]
    source: str
    licence: str
    start: int
    end: int
    document_sha256: str
    chunker: str
    content_hash: str
    metadata_hash: str
    access_hash: str
    position: int
    # Without a default: what is read later must not seem to be there already.
    closed_position: int | None

    def row(self) -> dict[str, Any]:
        """Return the fields by column name."""
        return {name: getattr(self, name) for name in COLUMNS}


COLUMNS: tuple[str, ...] = tuple(part.name for part in dataclasses.fields(Chunk))


def document_key(collection: str, document_id: str, tenant: str = "") -> str:
    """Return the name of a document among all collections and tenants; two tenants never share one."""
    return f"{tenant}:{collection}/{document_id}" if tenant else f"{collection}/{document_id}"


def label_key(labels: tuple[str, ...]) -> str:
    """Return one string for a set of labels, whatever their order."""
    return LABEL_SEPARATOR.join(sorted(set(labels)))


def metadata_pairs(metadata: dict[str, str]) -> list[str]:
    """Return metadata in the form in which it is stored and filtered."""
    return [f"{name}={value}" for name, value in sorted(metadata.items())]


def digest(*parts: object) -> str:
    """Return the SHA-256 of the parts in order, hexadecimal."""
    value = hashlib.sha256()
    for part in parts:
        data = str(part).encode()
        value.update(len(data).to_bytes(8, "big") + data)
    return value.hexdigest()
