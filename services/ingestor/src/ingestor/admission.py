"""What a document must be to be stored, wherever it comes from."""

import re
from collections.abc import Iterable

from chassis.errors import InvalidArgumentError
from knowledge.schema import Document

_LABEL = re.compile(r"[a-z][a-z0-9_]*")
_LONGEST_NAME = 500


def check(document: Document, longest_text_bytes: int) -> None:
    """Raise InvalidArgumentError that names the field for a document that cannot be kept."""
    name = document.document_id
    if not name.strip() or len(name) > _LONGEST_NAME:
        raise InvalidArgumentError(f"field 'id' must have 1 to {_LONGEST_NAME} characters, got {len(name)}")
    if not document.text.strip():
        raise InvalidArgumentError(f"{name!r}: field 'text' is empty")
    if "\x00" in document.text:
        raise InvalidArgumentError(f"{name!r}: field 'text' holds binary data")
    check_characters(document)
    if (size := len(document.text.encode())) > longest_text_bytes:
        raise InvalidArgumentError(f"{name!r}: field 'text' has {size} bytes; the limit is {longest_text_bytes}")
    for label in document.labels:
        if not _LABEL.fullmatch(label):
            raise InvalidArgumentError(f"{name!r}: label {label!r} must be lower-case letters, digits and '_'")


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
