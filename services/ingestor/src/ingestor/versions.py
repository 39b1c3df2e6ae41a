"""The rules of versions: a fluid document has one; anchored ones supersede each other by date and are never lost."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import replace

from chassis.errors import FailedPreconditionError, InvalidArgumentError
from knowledge.schema import Chunk, Document, Kind


class VersionConflictError(FailedPreconditionError):
    """A version would rewrite or blur one that is stored."""

    default_code = "version_conflict"


def normalised(document: Document) -> Document:
    """Return the document with its version filled in; raise InvalidArgumentError for an anchored one without a date."""
    if document.kind is Kind.FLUID:
        return document
    if document.effective_from is None:
        raise InvalidArgumentError(
            f"{document.document_id!r}: field 'effective_from' is missing; an anchored version needs a date", code="missing_effective_date"
        )
    return document if document.version else replace(document, version=document.effective_from.date().isoformat())


def check(document: Document, sha256: str, stored: Sequence[Chunk]) -> None:
    """Raise VersionConflictError when an anchored version would rewrite or blur what is stored."""
    if document.kind is Kind.FLUID:
        return
    name, date = document.document_id, document.effective_from
    for chunk in stored:
        if chunk.version == document.version:
            if chunk.withdrawn_at is not None:
                raise VersionConflictError(f"version {chunk.version!r} of {name!r} was withdrawn; publish a new version")
            if chunk.document_sha256 != sha256:
                raise VersionConflictError(f"version {chunk.version!r} of {name!r} is stored with another text; publish a new version")
        elif chunk.effective_from == date and chunk.withdrawn_at is None:
            versions = f"{chunk.version!r} and {document.version!r}"
            raise VersionConflictError(f"versions {versions} of {name!r} take effect on the same date {date:%Y-%m-%d}; change one")


def combined(document: Document, stored: Sequence[Chunk], fresh: Sequence[Chunk]) -> list[Chunk]:
    """Return all chunks of the document once `fresh` has replaced its version."""
    if document.kind is Kind.FLUID:
        return list(fresh)
    return chained([*(chunk for chunk in stored if chunk.version != document.version), *fresh])


def withdrawn(stored: Sequence[Chunk], version: str, now: dt.datetime) -> list[Chunk]:
    """Return all chunks of the document with one version withdrawn, so that the one before it is in force again."""
    return chained([replace(chunk, withdrawn_at=now) if chunk.version == version else chunk for chunk in stored])


def chained(chunks: Sequence[Chunk]) -> list[Chunk]:
    """Return the chunks with the end of each version set to the start of the next one that was not withdrawn."""
    starts = sorted({chunk.effective_from for chunk in chunks if chunk.withdrawn_at is None})
    return [replace(chunk, superseded_at=next((start for start in starts if start > chunk.effective_from), None)) for chunk in chunks]


def before(chunks: Sequence[Chunk], version: str) -> str:
    """Return the version that `version` supersedes; empty for the first."""
    starts = {chunk.version: chunk.effective_from for chunk in chunks if chunk.withdrawn_at is None}
    earlier = [name for name, start in starts.items() if start < starts[version]]
    return max(earlier, key=starts.__getitem__, default="")


def in_force(chunks: Sequence[Chunk], now: dt.datetime) -> str:
    """Return the version in force; empty when there is none."""
    for chunk in chunks:
        ended = chunk.superseded_at is not None and chunk.superseded_at <= now
        if chunk.withdrawn_at is None and chunk.effective_from <= now and not ended:
            return chunk.version
    return ""
