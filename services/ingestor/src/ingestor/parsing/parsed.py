"""What a file turns into, how large it may be, and the one error for a file that cannot be read."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Format(StrEnum):
    """The formats that are read."""

    MARKDOWN = "markdown"
    HTML = "html"
    PDF = "pdf"
    DOCX = "docx"
    TEXT = "text"


@dataclass(frozen=True)
class Limits:
    """Bounds of one file: bytes as sent, characters of its text, pages, and bytes once unpacked."""

    file_bytes: int = 32 * 1024 * 1024
    text_characters: int = 4 * 1024 * 1024
    pages: int = 2000
    unpacked_bytes: int = 256 * 1024 * 1024


@dataclass(frozen=True)
class Parsed:
    """A document as its file says it; `fields` are what a front matter declares."""

    format: Format
    title: str
    text: str
    metadata: dict[str, str] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)


class UnparsableError(Exception):
    """A file cannot be read; `code` is stable, the message says what is wrong with it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def unreadable(message: str) -> UnparsableError:
    """Return the error for a file that is damaged or not what its name says."""
    return UnparsableError("unreadable_document", message)


def too_large(message: str) -> UnparsableError:
    """Return the error for a file that exceeds a bound."""
    return UnparsableError("document_too_large", message)


def without_text(message: str) -> UnparsableError:
    """Return the error for a file in which there is nothing to read."""
    return UnparsableError("document_without_text", message)
