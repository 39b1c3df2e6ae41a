"""HTML pages: what a reader sees, as Markdown; scripts, styles and hidden parts are dropped."""

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

import lxml.etree
import lxml.html

from ingestor.parsing.decoding import decode
from ingestor.parsing.parsed import Format, Limits, Parsed, unreadable, without_text
from ingestor.parsing.tables import table

_DROPPED = frozenset({
    "script", "style", "noscript", "template", "iframe", "frame", "object", "embed", "applet", "svg", "math", "canvas", "audio", "video",
    "head", "nav", "button", "select", "input", "textarea", "datalist", "dialog", "link", "meta", "base",
})  # fmt: skip
_INLINE = frozenset({
    "a", "abbr", "acronym", "b", "bdi", "bdo", "big", "br", "cite", "code", "data", "del", "dfn", "em", "font", "i", "img", "ins", "kbd",
    "label", "mark", "q", "ruby", "rt", "rp", "s", "samp", "small", "span", "strike", "strong", "sub", "sup", "time", "tt", "u", "var",
    "wbr",
})  # fmt: skip
_HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_CHARSET = re.compile(rb"<meta[^>]+charset\s*=\s*[\"']?\s*([\w-]+)", re.IGNORECASE)
_DECLARATION = re.compile(r"\s*<\?xml[^>]*\?>")
_DATES = ("article:published_time", "article:modified_time", "dcterms.date", "dc.date", "date")
_DEEPEST = 120
_WIDEST = 100


def html(data: bytes, name: str, limits: Limits) -> Parsed:  # noqa: ARG001 - all parsers are called alike
    """Return the main part of a page; its `title` element or first heading is the title."""
    declared = _CHARSET.search(data[:4096])
    text = _DECLARATION.sub("", decode(data, declared[1].decode() if declared else ""), count=1)
    if not text.strip():
        raise without_text("the file has no text")
    parser = lxml.html.HTMLParser(remove_comments=True, remove_pis=True, no_network=True, huge_tree=False)
    try:
        root = lxml.html.document_fromstring(text, parser=parser)
    except (lxml.etree.LxmlError, ValueError) as error:
        raise unreadable(f"the page cannot be read: {error}") from error
    written = "\n\n".join(_blocks(_main(root), 0))
    if not written.strip():
        raise without_text("the page has no text that a reader would see")
    title = " ".join((root.findtext(".//head/title") or "").split()) or _first_heading(written) or PurePosixPath(name).stem
    return Parsed(Format.HTML, title, written, metadata=_metadata(root))


def _main(root: Any) -> Any:
    for tag in ("main", "article"):
        found = root.findall(f".//{tag}")
        if len(found) == 1:
            return found[0]
    body = root.find(".//body")
    return root if body is None else body


def _metadata(root: Any) -> dict[str, str]:
    named = {(tag.get("name") or tag.get("property") or "").lower(): tag.get("content") or "" for tag in root.iter("meta")}
    found = {
        "author": named.get("author", ""),
        "date": next((named[name] for name in _DATES if named.get(name)), ""),
        "language": root.get("lang") or "",
    }
    return {name: " ".join(value.split())[:200] for name, value in found.items() if value.strip()}


def _first_heading(text: str) -> str:
    return next((line.lstrip("#").strip() for line in text.split("\n") if line.startswith("#")), "")


def _is_hidden(element: Any) -> bool:
    if not isinstance(element.tag, str) or element.tag in _DROPPED:
        return True
    return "hidden" in element.attrib or element.get("aria-hidden") == "true" or bool(_HIDDEN.search(element.get("style") or ""))


def _blocks(element: Any, depth: int) -> Iterator[str]:
    """Yield the blocks of an element in order; text between blocks is a paragraph."""
    line = [element.text or ""]
    for child in element:
        if not _is_hidden(child):
            if child.tag in _INLINE and not _holds_blocks(child):
                line.append(_inline(child, depth))
            else:
                yield from _paragraph(line)
                line = []
                yield from _block(child, depth + 1)
        line.append(child.tail or "")
    yield from _paragraph(line)


def _block(element: Any, depth: int) -> Iterator[str]:
    if depth > _DEEPEST:
        yield from _paragraph(["".join(_visible(element))])
    elif re.fullmatch(r"h[1-6]", element.tag):
        if text := _line(element, depth):
            yield f"{'#' * int(element.tag[1])} {text}"
    elif element.tag == "pre":
        yield from _code(element)
    elif element.tag in {"ul", "ol", "menu"}:
        if items := "\n".join(_items(element, depth)):
            yield items
    elif element.tag == "dl":
        if items := "\n".join(_terms(element, depth)):
            yield items
    elif element.tag == "table":
        yield from _table(element, depth)
    elif element.tag == "blockquote":
        yield from ("\n".join(f"> {line}" for line in block.split("\n")) for block in _blocks(element, depth))
    else:
        yield from _blocks(element, depth)


def _holds_blocks(element: Any) -> bool:
    """Return whether an inline element wraps blocks, as links around cards do."""
    return any(isinstance(part.tag, str) and part.tag not in _INLINE and part.tag not in _DROPPED for part in element.iterdescendants())


def _visible(element: Any) -> Iterator[str]:
    """Yield the texts of a subtree that are not hidden, without recursion."""
    waiting: list[Any] = [element]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            yield part
            continue
        for child in reversed(part):
            waiting.append(child.tail or "")
            if not _is_hidden(child):
                waiting.append(child)
        waiting.append(part.text or "")


def _inline(element: Any, depth: int) -> str:
    if element.tag == "br":
        return "\n"
    if element.tag == "img":
        return element.get("alt") or ""
    if depth > _DEEPEST:
        return "".join(_visible(element))
    parts = [element.text or ""]
    for child in element:
        parts += [] if _is_hidden(child) else [_inline(child, depth + 1)]
        parts.append(child.tail or "")
    text = "".join(parts)
    return f"`{text.strip()}`" if element.tag == "code" and text.strip() and "`" not in text else text


def _line(element: Any, depth: int) -> str:
    return " ".join(_inline(element, depth).split())


def _paragraph(parts: list[str]) -> Iterator[str]:
    lines = [" ".join(line.split()) for line in "".join(parts).split("\n")] if any("\n" in part for part in parts) else ["".join(parts)]
    text = " ".join(" ".join(lines).split())
    if text:
        yield text


def _code(element: Any) -> Iterator[str]:
    text = "".join(_visible(element)).strip("\n")
    if text.strip():
        classes = " ".join(part.get("class") or "" for part in (element, *element.findall("code")))
        language = re.search(r"(?:language|lang)-([\w+#-]+)", classes)
        fence = "~~~" if "```" in text else "```"
        yield f"{fence}{language[1] if language else ''}\n{text}\n{fence}"


def _items(element: Any, depth: int) -> Iterator[str]:
    number = 0
    for child in element:
        if _is_hidden(child):
            continue
        number += 1
        mark = f"{number}. " if element.tag == "ol" else "- "
        lines = "\n".join(_blocks(child, depth + 1)).split("\n")
        if any(line.strip() for line in lines):
            yield mark + lines[0]
            yield from (f"{' ' * len(mark)}{line}" for line in lines[1:])


def _terms(element: Any, depth: int) -> Iterator[str]:
    term = ""
    # A list within a list is read with its own part; some pages group the parts.
    for child in (part for group in element for part in (group if group.tag == "div" else [group])):
        if child.tag not in {"dt", "dd"} or _is_hidden(child):
            continue
        text = " ".join(" ".join(_blocks(child, depth + 1)).split())
        if child.tag == "dt":
            term = text
        elif text:
            yield f"- {term}: {text}" if term else f"- {text}"


def _table(element: Any, depth: int) -> Iterator[str]:
    rows = [row for row in element.iter("tr") if next(row.iterancestors("table")) is element and not _is_hidden(row)]
    cells = list(_cells(rows, depth))
    caption = element.find("caption")
    if caption is not None and (text := _line(caption, depth)):
        yield text
    if written := table(cells):
        yield written


def _cells(rows: Sequence[Any], depth: int) -> Iterator[list[str]]:
    """Yield the texts of each row under their columns; a cell that spans rows is in each of them, one that spans columns in its first."""
    reaching: dict[int, tuple[int, str]] = {}
    for row in rows:
        line, further, last = list[str](), dict[int, tuple[int, str]](), max(reaching, default=-1)
        cells = iter([cell for cell in row if cell.tag in {"td", "th"} and not _is_hidden(cell)])
        cell = next(cells, None)
        while cell is not None or len(line) <= last:
            left, shown = 1, [""]
            if len(line) in reaching:
                left, text = reaching[len(line)]
                shown = [text]
            elif cell is not None:
                left, width = _span(cell, "rowspan"), _span(cell, "colspan") if len(line) < _WIDEST else 1
                shown = [" ".join(_blocks(cell, depth + 1)), *[""] * (width - 1)]
                cell = next(cells, None)
            further |= {len(line) + place: (left - 1, text) for place, text in enumerate(shown) if left > 1}
            line += shown
        reaching = further
        yield line


def _span(cell: Any, name: str) -> int:
    value = str(cell.get(name) or "1").strip()
    return min(max(int(value), 1), _WIDEST) if value.isascii() and value.isdigit() and len(value) < 6 else 1
