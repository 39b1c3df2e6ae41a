"""PDF documents: paragraphs in reading order, headings by their size; a scan has no text and is refused."""

import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from pdfminer.converter import PDFPageAggregator
from pdfminer.layout import LAParams, LTChar, LTTextBox, LTTextLine
from pdfminer.pdfdocument import PDFDocument, PDFEncryptionError, PDFPasswordIncorrect
from pdfminer.pdfinterp import PDFPageInterpreter, PDFResourceManager
from pdfminer.pdfpage import PDFPage
from pdfminer.pdfparser import PDFParser
from pdfminer.psexceptions import PSException

from ingestor.parsing.parsed import Format, Limits, Parsed, UnparsableError, too_large, unreadable, without_text

_BULLET = re.compile(r"^[\u2022\u2023\u25aa\u25cf\u25e6\u2043\u00b7\uf0b7]\s*")
_UNMAPPED = re.compile(r"\(cid:\d+\)")
_MOMENT = re.compile(r"D:(\d{4})(\d\d)?(\d\d)?")
_HEADING_RATIO = 1.12
_HEADING_WORDS = 16


@dataclass(frozen=True)
class _Line:
    """A line of a page: its text, the size of its letters, the box of lines that it belongs to, and its height on the page."""

    text: str
    size: float
    page: int
    box: int
    y: float


def pdf(data: bytes, name: str, limits: Limits) -> Parsed:
    """Return the text of all pages; raise UnparsableError for damage, a password, too many pages, or no text."""
    try:
        document = PDFDocument(PDFParser(io.BytesIO(data)), password="", fallback=True)
        lines = list(_lines(document, limits))
    except (PDFPasswordIncorrect, PDFEncryptionError) as error:
        raise UnparsableError("encrypted_document", "the document is protected by a password") from error
    except (PSException, ValueError, KeyError, TypeError, AttributeError, IndexError, AssertionError, OSError) as error:
        raise unreadable(f"the PDF is damaged: {type(error).__name__}: {str(error)[:200]}") from error
    lines = list(_without_repeats(lines))
    if sum(len(_UNMAPPED.findall(line.text)) for line in lines) > sum(len(_UNMAPPED.sub("", line.text)) for line in lines):
        raise without_text("the letters of the document have no meaning, only shapes; it must be recognised first")
    text = "\n\n".join(_blocks(lines))
    if not text.strip():
        raise without_text("the document has no text, only images; it must be recognised first")
    about = _metadata(document)
    title = about.pop("title", "") or _largest(lines) or PurePosixPath(name).stem
    return Parsed(Format.PDF, title, text, metadata=about)


def _lines(document: PDFDocument, limits: Limits) -> Iterator[_Line]:
    resources = PDFResourceManager(caching=True)
    device = PDFPageAggregator(resources, laparams=LAParams())
    interpreter = PDFPageInterpreter(resources, device)
    characters = 0
    pages = 0
    for number, page in enumerate(PDFPage.create_pages(document)):
        pages = number + 1
        if pages > limits.pages:
            raise too_large(f"the document has more than {limits.pages} pages")
        interpreter.process_page(page)
        for box_number, box in enumerate(part for part in device.get_result() if isinstance(part, LTTextBox)):
            for line in (part for part in box if isinstance(part, LTTextLine)):
                text = " ".join(line.get_text().split())
                characters += len(text)
                if characters > limits.text_characters:
                    raise too_large(f"the document has more than {limits.text_characters} characters")
                if text:
                    yield _Line(text, _size(line), number, box_number, line.y0)
    if not pages:
        raise unreadable("the PDF has no pages")


def _size(line: Any) -> float:
    sizes = Counter(round(char.size, 1) for char in line if isinstance(char, LTChar))
    return sizes.most_common(1)[0][0] if sizes else 0.0


def _without_repeats(lines: list[_Line]) -> Iterator[_Line]:
    """Drop the first and the last line of pages where most pages have the same one there, but for numbers."""
    heights: dict[int, list[float]] = {}
    for line in lines:
        heights.setdefault(line.page, []).append(line.y)
    edges = {page: {min(found), max(found)} for page, found in heights.items() if len(set(found)) > 2}
    seen: dict[str, set[int]] = {}
    for line in lines:
        if line.y in edges.get(line.page, ()):
            seen.setdefault(_pattern(line), set()).add(line.page)
    for line in lines:
        at_edge = line.y in edges.get(line.page, ())
        if not (at_edge and len(heights) > 3 and len(seen[_pattern(line)]) * 2 > len(heights)):
            yield line


def _pattern(line: _Line) -> str:
    return re.sub(r"\d+", "0", line.text)


def _body_size(lines: list[_Line]) -> float:
    sizes: Counter[float] = Counter()
    for line in lines:
        sizes[line.size] += len(line.text)
    return sizes.most_common(1)[0][0] if sizes else 0.0


def _blocks(lines: list[_Line]) -> Iterator[str]:
    body = _body_size(lines)
    levels = {
        size: rank for rank, size in enumerate(sorted({line.size for line in lines if line.size > body * _HEADING_RATIO}, reverse=True))
    }
    paragraph, place = "", (-1, -1)
    for line in lines:
        heading = line.size in levels and len(line.text.split()) <= _HEADING_WORDS
        bullet = bool(_BULLET.match(line.text))
        if paragraph and (heading or bullet or (line.page, line.box) != place):
            yield paragraph
            paragraph = ""
        place = (line.page, line.box)
        if heading:
            yield f"{'#' * min(levels[line.size] + 1, 4)} {line.text}"
        elif bullet:
            paragraph = f"- {_BULLET.sub('', line.text)}"
        else:
            paragraph = _continued(paragraph, _UNMAPPED.sub("", line.text))
    if paragraph:
        yield paragraph


def _continued(text: str, line: str) -> str:
    if not text:
        return line
    if re.search(r"[a-z]-$", text) and line[:1].islower():
        return text[:-1] + line
    return f"{text} {line}"


def _largest(lines: list[_Line]) -> str:
    body = _body_size(lines)
    large = [line for line in lines[:40] if line.size > body * _HEADING_RATIO]
    return max(large, key=lambda line: line.size).text if large else ""


def _metadata(document: PDFDocument) -> dict[str, str]:
    found: dict[str, str] = {}
    for info in document.info:
        for name in ("Title", "Author"):
            if value := _string(info.get(name)):
                found[name.lower()] = value
        for name in ("CreationDate", "ModDate"):
            if match := _MOMENT.match(_string(info.get(name))):
                found["date"] = "-".join(part for part in match.groups() if part)
    return found


def _string(value: Any) -> str:
    if isinstance(value, bytes):
        marked = value.startswith((b"\xfe\xff", b"\xff\xfe"))
        value = value.decode("utf-16" if marked else "latin-1", errors="replace")
    return " ".join(value.replace("\x00", "").split())[:200] if isinstance(value, str) else ""
