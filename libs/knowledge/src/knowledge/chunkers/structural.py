"""Cuts a text where its author did: at headings, with tables, lists and code kept whole where they fit."""

from knowledge.chunkers.blocks import Block, Part, blocks, fitting

TARGET_WORDS = 180
LONGEST_WORDS = 230


def structural(text: str) -> list[tuple[int, int]]:
    """Return the half-open character ranges of the chunks of `text`, in order; none for blank text."""
    groups: list[list[Block]] = []
    for whole in blocks(text):
        for piece in fitting(text, whole, LONGEST_WORDS):
            if groups and _belongs(groups[-1], piece):
                groups[-1].append(piece)
            else:
                groups.append([piece])
    return [(group[0].start, group[-1].end) for group in _joined(groups)]


def _words(group: list[Block]) -> int:
    return sum(piece.words for piece in group)


def _belongs(group: list[Block], piece: Block) -> bool:
    words = _words(group)
    if all(part.part is Part.HEADING for part in group):
        # A heading goes with what it is about, however much that is.
        return words + piece.words <= LONGEST_WORDS
    if piece.part is Part.HEADING:
        return words < TARGET_WORDS // 2 and words + piece.words <= TARGET_WORDS
    return words + piece.words <= TARGET_WORDS


def _joined(groups: list[list[Block]]) -> list[list[Block]]:
    """Join a short last piece, which would be found for the wrong reasons, to the one before it."""
    if len(groups) > 1:
        last, before = groups[-1], groups[-2]
        if _words(last) < TARGET_WORDS // 6 and _words(last) + _words(before) <= LONGEST_WORDS:
            return [*groups[:-2], [*before, *last]]
    return groups
