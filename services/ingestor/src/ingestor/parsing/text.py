"""Plain text and Markdown, which are kept as they are."""

from pathlib import PurePosixPath

from ingestor.parsing import front_matter
from ingestor.parsing.decoding import decode
from ingestor.parsing.parsed import Format, Limits, Parsed, without_text


def markdown(data: bytes, name: str, limits: Limits) -> Parsed:  # noqa: ARG001 - all parsers are called alike
    """Return a page without its front matter; its first heading is the title where that names none."""
    fields, text = front_matter.split(decode(data))
    title = fields.get("title")
    return _parsed(Format.MARKDOWN, title if isinstance(title, str) else _heading(text) or PurePosixPath(name).stem, text, fields)


def plain(data: bytes, name: str, limits: Limits) -> Parsed:  # noqa: ARG001 - all parsers are called alike
    """Return the text; the file's name is the title."""
    fields, text = front_matter.split(decode(data))
    title = fields.get("title")
    return _parsed(Format.TEXT, title if isinstance(title, str) else PurePosixPath(name).stem, text, fields)


def _parsed(kind: Format, title: str, text: str, fields: dict[str, object]) -> Parsed:
    if not text.strip():
        raise without_text("the file has no text")
    return Parsed(kind, title, text, fields=fields)


def _heading(text: str) -> str:
    first = text.lstrip().partition("\n")[0]
    return first.lstrip("# ").strip() if first.startswith("#") else ""
