"""Word documents: headings, lists, tables and code by their styles; never unpacked beyond a bound."""

import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import docx
import lxml.etree
from docx.opc.exceptions import OpcError
from docx.oxml.ns import qn

from ingestor.parsing.parsed import Format, Limits, Parsed, UnparsableError, too_large, unreadable, without_text
from ingestor.parsing.tables import table

_MOST_PARTS, _WIDEST = 5000, 100
_BREAKS = {qn("w:tab"): "\t", qn("w:br"): "\n", qn("w:cr"): "\n", qn("w:noBreakHyphen"): "-"}
_WRAPPERS = frozenset({qn("w:sdt"), qn("w:sdtContent"), qn("w:customXml"), qn("w:ins"), qn("w:moveTo")})
_UNSEEN = frozenset({
    qn("w:pPr"), qn("w:rPr"), qn("w:del"), qn("w:moveFrom"), "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback",
})  # fmt: skip
_HEADING = re.compile(r"heading (\d)")


def word(data: bytes, name: str, limits: Limits) -> Parsed:
    """Return the text of a document's body; raise UnparsableError for damage, a password, a bomb, or no text."""
    _check(data, limits)
    try:
        document = docx.Document(io.BytesIO(data))
        styles = {style.style_id: (style.name or "").lower() for style in document.styles}
        text = "\n\n".join(_blocks(document.element.body, styles))
        about = _metadata(document.core_properties)
    except (OpcError, zipfile.BadZipFile, lxml.etree.LxmlError, KeyError, ValueError, AttributeError, TypeError, OSError) as error:
        raise unreadable(f"the document is damaged: {type(error).__name__}: {str(error)[:200]}") from error
    if not text.strip():
        raise without_text("the document has no text")
    heading = next((line.lstrip("#").strip() for line in text.split("\n") if line.startswith("#")), "")
    return Parsed(Format.DOCX, about.pop("title", "") or heading or PurePosixPath(name).stem, text, metadata=about)


def _check(data: bytes, limits: Limits) -> None:
    """Refuse what would grow too far; the archive's own figures bound what is ever read of it."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise unreadable(f"the document is damaged: {error}") from error
    if any(part.flag_bits & 1 for part in parts):
        raise UnparsableError("encrypted_document", "the document is protected by a password")
    unpacked = sum(part.file_size for part in parts)
    if len(parts) > _MOST_PARTS or unpacked > limits.unpacked_bytes:
        raise too_large(
            f"the document unpacks to {unpacked} bytes in {len(parts)} parts; the limit is {limits.unpacked_bytes} in {_MOST_PARTS}"
        )


def _blocks(body: Any, styles: dict[str, str]) -> Iterator[str]:
    """Yield the blocks in order; items of a list, and lines of code, that follow each other are one."""
    pending: list[str] = []
    kind = ""
    for element in _within(body, qn("w:p"), qn("w:tbl")):
        style = _style(element, styles)
        now, text = _kind(element, style), _block(element, style)
        if pending and now != kind:
            yield _joined(pending, kind)
            pending = []
        kind = now
        if not text.strip():
            continue
        if kind:
            pending.append(text)
        else:
            yield text
    if pending:
        yield _joined(pending, kind)


def _within(element: Any, *wanted: str) -> Iterator[Any]:
    """Yield the children of these kinds, also those inside of content controls and what else wraps them."""
    for child in element:
        if child.tag in wanted:
            yield child
        elif child.tag in _WRAPPERS:
            yield from _within(child, *wanted)


def _joined(lines: list[str], kind: str) -> str:
    text = "\n".join(lines)
    return f"```\n{text}\n```" if kind == "code" else text


def _style(element: Any, styles: dict[str, str]) -> str:
    found = element.find(f"{qn('w:pPr')}/{qn('w:pStyle')}")
    return "" if found is None else styles.get(found.get(qn("w:val")), "")


def _kind(element: Any, style: str) -> str:
    if element.tag == qn("w:tbl"):
        return ""
    if "code" in style or "preformatted" in style or "plain text" in style:
        return "code"
    numbered = element.find(f"{qn('w:pPr')}/{qn('w:numPr')}") is not None
    return "list" if (numbered or style.startswith("list")) and not _HEADING.match(style) else ""


def _block(element: Any, style: str) -> str:
    if element.tag == qn("w:tbl"):
        return table(list(_cells(row)) for row in _within(element, qn("w:tr")))
    text = _text(element)
    if _kind(element, style) == "code":
        return text
    text = "\n".join(" ".join(line.split()) for line in text.split("\n")).strip()
    if style == "title" or (match := _HEADING.match(style)):
        level = 1 if style == "title" else int(match[1])  # type: ignore[index]
        return f"{'#' * level} {' '.join(text.split())}" if text else ""
    if _kind(element, style) == "list" and text:
        depth = element.find(f"{qn('w:pPr')}/{qn('w:numPr')}/{qn('w:ilvl')}")
        indent = "  " * min(int(depth.get(qn("w:val"))), 8) if depth is not None else ""
        return f"{indent}{'1.' if 'number' in style else '-'} {text}"
    return text


def _cells(row: Any) -> Iterator[str]:
    """Yield the texts of a row under their columns; one that spans several is in the first."""
    for cell in _within(row, qn("w:tc")):
        yield _text(cell)
        span = cell.find(f"{qn('w:tcPr')}/{qn('w:gridSpan')}")
        width = span.get(qn("w:val"), "1") if span is not None else "1"
        yield from [""] * (min(int(width), _WIDEST) - 1 if width.isascii() and width.isdigit() and len(width) < 6 else 0)


def _text(element: Any) -> str:
    return "".join(_visible(element))


def _visible(element: Any) -> Iterator[str]:
    """Yield what a reader sees of an element: not what was deleted or moved away, nor a second form of what is there."""
    for child in element:
        if child.tag == qn("w:t"):
            yield child.text or ""
        elif child.tag in _BREAKS:
            yield _BREAKS[child.tag]
        elif child.tag == qn("w:p"):
            yield from _visible(child)
            yield "\n"
        elif child.tag not in _UNSEEN and not _is_hidden(child):
            yield from _visible(child)


def _is_hidden(run: Any) -> bool:
    found = run.find(f"{qn('w:rPr')}/{qn('w:vanish')}") if run.tag == qn("w:r") else None
    return found is not None and found.get(qn("w:val"), "1") not in {"0", "false", "off"}


def _metadata(properties: Any) -> dict[str, str]:
    date = properties.modified or properties.created
    found = {"title": properties.title, "author": properties.author, "date": date.date().isoformat() if date else ""}
    return {name: " ".join(value.split())[:200] for name, value in found.items() if value and value.strip()}
