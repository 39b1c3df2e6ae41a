"""Plain text and Markdown, which are kept as they are."""

import re
from pathlib import PurePosixPath

from ingestor.parsing import front_matter
from ingestor.parsing.decoding import decode
from ingestor.parsing.parsed import Format, Limits, Parsed, without_text

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_HEADING = re.compile(r" {0,3}#{1,6}[ \t]")


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
    """Return the first heading that is not within code; empty without one."""
    fence = ""
    for line in text.split("\n"):
        if mark := _FENCE.match(line):
            fence = "" if fence and mark[1].startswith(fence) else fence or mark[1]
        elif not fence and (found := _HEADING.match(line)) and (heading := _unclosed(line[found.end() :].strip())):
            return heading
    return ""


def _unclosed(heading: str) -> str:
    """Return a heading without the signs that may close it; those of a word stay."""
    left = heading.rstrip("#")
    return left.rstrip() if not left or left[-1].isspace() else heading
