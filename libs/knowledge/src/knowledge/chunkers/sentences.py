"""Windows of a few sentences that overlap, for texts whose facts are single sentences."""

from knowledge.chunkers.blocks import Block, Part, blocks, fitting

LONGEST_WORDS = 230


def sentence_windows(text: str, count: int, overlap: int) -> list[tuple[int, int]]:
    """Return half-open character ranges of `count` sentences each, `overlap` of which the next one begins with.

    A table, a block of code and an item of a list count as one sentence, a heading as none.
    """
    pieces = [piece for block in blocks(text) for piece in fitting(text, block, LONGEST_WORDS, sentences=True)]
    windows: list[tuple[int, int]] = []
    first = 0
    while first < len(pieces):
        last = _last(pieces, first, count)
        windows.append((pieces[first].start, pieces[last - 1].end))
        if last == len(pieces):
            break
        first = _next(pieces, first, last, overlap)
    return windows


def _last(pieces: list[Block], first: int, count: int) -> int:
    """Return the end of the window that begins at `first`."""
    last, found, words = first, 0, 0
    while last < len(pieces) and found < count and (words + pieces[last].words <= LONGEST_WORDS or last == first):
        words += pieces[last].words
        found += pieces[last].part is not Part.HEADING
        last += 1
    while last - 1 > first and last < len(pieces) and pieces[last - 1].part is Part.HEADING:
        # A heading at the end is about what follows.
        last -= 1
    return last


def _next(pieces: list[Block], first: int, last: int, overlap: int) -> int:
    """Return where the window after `first` to `last` begins: later than the one before, and it adds something."""
    begin, found = last, 0
    while begin - 1 > first and found < overlap:
        begin -= 1
        found += pieces[begin].part is not Part.HEADING
    words = sum(piece.words for piece in pieces[begin : last + 1])
    while begin < last and words > LONGEST_WORDS:
        words -= pieces[begin].words
        begin += 1
    return begin
