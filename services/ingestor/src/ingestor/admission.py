"""What a document must be to be stored, wherever it comes from."""

import re
from collections.abc import Container, Iterable
from pathlib import PurePosixPath

from chassis.errors import FailedPreconditionError, InvalidArgumentError
from contracts.subjects import InvalidTokenError, token
from knowledge.schema import Document, Kind

_LABEL = re.compile(r"[a-z][a-z0-9_]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LONGEST_NAME = 500
# A title is searched, and stored, with each piece of its document.
_LONGEST = {"title": 2000, "version": _LONGEST_NAME, "source": 2000, "licence": _LONGEST_NAME}
_MOST_METADATA, _LONGEST_METADATA = 64, 8000


def check_by_hand(collection: str, fed: Container[str]) -> None:
    """Raise FailedPreconditionError for a collection that a table feeds: the next change or comparison would undo what is done by hand."""
    if collection in fed:
        raise FailedPreconditionError(
            f"a table feeds collection {collection!r}, and its next change would undo this; change the row", code="fed_collection"
        )


def check_sent(document: Document) -> None:
    """Raise InvalidArgumentError for a document that somebody sends under a name that leads out of its collection."""
    if ".." in PurePosixPath(document.document_id).parts:
        raise InvalidArgumentError(f"field 'id' must be a name, got {document.document_id[:80]!r}")


def check(document: Document, longest_text_bytes: int) -> None:
    """Raise InvalidArgumentError that names the field for a document that cannot be kept."""
    name = document.document_id
    if not name.strip() or len(name) > _LONGEST_NAME:
        raise InvalidArgumentError(f"field 'id' must have 1 to {_LONGEST_NAME} characters, got {len(name)}")
    if _CONTROL.search(name):
        raise InvalidArgumentError(f"field 'id' must be a name, got {name[:80]!r}")
    if not document.text.strip():
        raise InvalidArgumentError(f"{name!r}: field 'text' is empty")
    if "\x00" in document.text:
        raise InvalidArgumentError(f"{name!r}: field 'text' holds binary data")
    start, end = document.effective_from, document.expires_at
    if document.kind is Kind.ANCHORED and start and end and end < start:
        raise InvalidArgumentError(f"{name!r}: field 'expires_at' ({end}) is before 'effective_from' ({start}): it would never be in force")
    check_characters(document)
    _check_names(document)
    if (size := len(document.text.encode())) > longest_text_bytes:
        raise InvalidArgumentError(f"{name!r}: field 'text' has {size} bytes; the limit is {longest_text_bytes}")
    for label in document.labels:
        if not _LABEL.fullmatch(label):
            raise InvalidArgumentError(f"{name!r}: label {label!r} must be lower-case letters, digits and '_'")


def _check_names(document: Document) -> None:
    """Raise InvalidArgumentError for a name that is too long, or that indexes and subjects cannot tell from others."""
    name = document.document_id
    for field, longest in _LONGEST.items():
        if (size := len(getattr(document, field))) > longest:
            raise InvalidArgumentError(f"{name!r}: field {field!r} has {size} characters; the limit is {longest}")
    if _CONTROL.search(document.version):
        raise InvalidArgumentError(f"{name!r}: field 'version' must be a name, got {document.version[:80]!r}")
    if document.tenant:
        try:
            token(document.tenant, what="tenant")
        except InvalidTokenError as error:
            raise InvalidArgumentError(f"{name!r}: {str(error)[:200]}") from error
    if (size := len(document.metadata)) > _MOST_METADATA:
        raise InvalidArgumentError(f"{name!r}: field 'metadata' has {size} entries; the limit is {_MOST_METADATA}")
    for key, value in document.metadata.items():
        if not key or "=" in key or len(key) > _LONGEST_NAME:
            message = f"{name!r}: field 'metadata' needs names of 1 to {_LONGEST_NAME} characters without '=', got {key[:80]!r}"
            raise InvalidArgumentError(message)
        if (size := len(value)) > _LONGEST_METADATA:
            raise InvalidArgumentError(f"{name!r}: field 'metadata.{key[:80]}' has {size} characters; the limit is {_LONGEST_METADATA}")


def check_characters(document: Document) -> None:
    """Raise InvalidArgumentError with code `unreadable_document` where a field holds half a character, which JSON and YAML can write."""
    for field, text in _texts(document):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            message = f"{document.document_id!r}: field {field!r} holds half a character at {error.start}: {text[error.start]!r}"
            raise InvalidArgumentError(message, code="unreadable_document") from error


def _texts(document: Document) -> Iterable[tuple[str, str]]:
    for field in ("text", "title", "version", "tenant", "source", "licence"):
        yield field, getattr(document, field)
    yield "id", document.document_id
    yield from (("labels", label) for label in document.labels)
    yield from (("metadata", text) for pair in document.metadata.items() for text in pair)
