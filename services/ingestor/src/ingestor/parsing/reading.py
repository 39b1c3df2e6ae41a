"""Reads one file, whatever it is; runs in the worker process alone."""

from collections.abc import Callable
from dataclasses import replace

from ingestor.parsing.parsed import Format, Limits, Parsed, UnparsableError, too_large, unreadable
from ingestor.parsing.sniffing import format_of

_LONGEST_TITLE = 300


def read(data: bytes, name: str, content_type: str, limits: Limits) -> Parsed:
    """Return what the file says; raise UnparsableError, and nothing else, for one that cannot be read."""
    if len(data) > limits.file_bytes:
        raise too_large(f"the file has {len(data)} bytes; the limit is {limits.file_bytes}")
    try:
        parsed = _parser(format_of(data, name, content_type))(data, name, limits)
    except UnparsableError:
        raise
    except MemoryError as error:
        raise too_large("the file needs more memory than a document may") from error
    except Exception as error:
        raise unreadable(f"the file cannot be read: {type(error).__name__}: {str(error)[:200]}") from error
    if len(parsed.text) > limits.text_characters:
        raise too_large(f"the text has {len(parsed.text)} characters; the limit is {limits.text_characters}")
    return replace(parsed, title=_short(parsed.title))


def _short(title: str) -> str:
    """Return a title that can stand before each piece of its document: a first line may be as long as the file."""
    return title if len(title) <= _LONGEST_TITLE else title[:_LONGEST_TITLE].rsplit(None, 1)[0] + " …"


def _parser(kind: Format) -> Callable[[bytes, str, Limits], Parsed]:
    """Return the parser of a format; its libraries are loaded with the first file of that kind."""
    if kind is Format.PDF:
        from ingestor.parsing.pdf import pdf

        return pdf
    if kind is Format.DOCX:
        from ingestor.parsing.word import word

        return word
    if kind is Format.HTML:
        from ingestor.parsing.html import html

        return html
    from ingestor.parsing.text import markdown, plain

    return markdown if kind is Format.MARKDOWN else plain
