"""What a Markdown-like text is made of: headings, paragraphs, lists, tables and code, as character ranges."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

# A word that is much longer than words are counts as several, so that a bound on words also bounds characters.
CHARACTERS_PER_WORD = 12

_WORD = re.compile(r"\S+")
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[\"'(\[]?[A-Z0-9])|(?<=[。！？])")  # noqa: RUF001 - these end sentences in Chinese and Japanese
_LINE = re.compile(r"\n+")
_HEADING = re.compile(r" {0,3}#{1,6}(?:\s|$)")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_ITEM = re.compile(r"\s*(?:[-*+]|\d{1,9}[.)])\s+")
# The blanks before an item are bounded: they are read again at each line that they span.
_NEXT_ITEM = re.compile(r"\n+(?=\s{0,99}(?:[-*+]|\d{1,9}[.)])\s)")
_ROW = re.compile(r"\s*\|")


class Part(StrEnum):
    """What a block is."""

    HEADING = "heading"
    PARAGRAPH = "paragraph"
    LIST = "list"
    TABLE = "table"
    CODE = "code"


@dataclass(frozen=True)
class Block:
    """Half-open range of characters, without blanks at its ends, and its length in words."""

    start: int
    end: int
    words: int
    part: Part


def blocks(text: str) -> Iterator[Block]:
    """Yield the blocks of a text in order; together they hold every character that is not blank."""
    part, begin, fence = Part.PARAGRAPH, 0, ""
    open_block = False
    for start, end in _lines(text):
        line = text[start:end]
        if fence:
            if line.strip().startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
                yield from _block(text, begin, end, Part.CODE)
                open_block = False
            continue
        found = _part(line, part if open_block else None)
        if found is None or found is not part or found in {Part.HEADING, Part.CODE} or not open_block:
            if open_block:
                yield from _block(text, begin, start, part)
            begin, part, open_block = start, found or Part.PARAGRAPH, found is not None
        if found is Part.CODE and (opening := _FENCE.match(line)):
            fence = opening[1]
    if open_block:
        yield from _block(text, begin, len(text), part)


def fitting(text: str, block: Block, longest: int, *, sentences: bool = False) -> Iterator[Block]:
    """Yield the block, or its natural pieces where it has more than `longest` words; `sentences` cuts every paragraph and list."""
    cut = sentences and block.part in {Part.PARAGRAPH, Part.LIST}
    if block.words <= longest and not cut:
        yield block
        return
    separators = {
        Part.LIST: (_NEXT_ITEM, _SENTENCE, _LINE),
        Part.TABLE: (_LINE,),
        Part.CODE: (_LINE,),
    }.get(block.part, (_SENTENCE, _LINE))
    if cut:
        separators = separators[:1]
    yield from _pieces(text, block, longest, separators, always=cut)


def _pieces(text: str, block: Block, longest: int, separators: tuple[re.Pattern[str], ...], *, always: bool) -> Iterator[Block]:
    if block.words <= longest and not always:
        yield block
    elif separators:
        for piece in _split(text, block, separators[0]):
            yield from _pieces(text, piece, longest, separators[1:], always=False)
    else:
        yield from _runs(text, block, longest)


def _runs(text: str, block: Block, longest: int) -> Iterator[Block]:
    """Yield runs of whole words, and pieces of a word only where one alone is too long."""
    begin = end = block.start
    count = 0
    for match in _WORD.finditer(text, block.start, block.end):
        if count and _length(count + 1, match.end() - begin) > longest:
            yield from _block(text, begin, end, block.part)
            begin, count = match.start(), 0
        count, end = count + 1, match.end()
        while _length(count, end - begin) > longest:
            cut = begin + longest * CHARACTERS_PER_WORD
            yield from _block(text, begin, cut, block.part)
            begin = cut
    yield from _block(text, begin, end, block.part)


def words_in(text: str, start: int, end: int) -> int:
    """Return the length of a range in words, or in twelves of characters where that is more."""
    return _length(len(_WORD.findall(text, start, end)), end - start)


def _length(words: int, characters: int) -> int:
    return max(words, -(-characters // CHARACTERS_PER_WORD))


def _split(text: str, block: Block, separator: re.Pattern[str]) -> Iterator[Block]:
    position = block.start
    for match in separator.finditer(text, block.start, block.end):
        yield from _block(text, position, match.start(), block.part)
        position = match.end()
    yield from _block(text, position, block.end, block.part)


def _part(line: str, current: Part | None) -> Part | None:
    """Return what a line is, given the block that it may continue; None for a blank line."""
    if not line.strip():
        # A blank line ends everything but a list, whose items may stand apart.
        return Part.LIST if current is Part.LIST else None
    if _FENCE.match(line):
        return Part.CODE
    if _HEADING.match(line):
        return Part.HEADING
    if _ROW.match(line):
        return Part.TABLE
    if _ITEM.match(line) or (current is Part.LIST and line[0].isspace()):
        return Part.LIST
    return Part.PARAGRAPH


def _block(text: str, start: int, end: int, part: Part) -> Iterator[Block]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if start < end:
        yield Block(start, end, words_in(text, start, end), part)


def _lines(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    while start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        yield start, end
        start = end
