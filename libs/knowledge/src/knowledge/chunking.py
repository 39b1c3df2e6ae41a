"""The named, versioned ways to cut a text; the name is part of a chunk's content hash, so another one embeds anew."""

import re

from knowledge.chunkers.paragraphs import LONGEST_WORDS, TARGET_WORDS, paragraphs
from knowledge.chunkers.semantic import Encode, semantic
from knowledge.chunkers.sentences import sentence_windows
from knowledge.chunkers.structural import structural

__all__ = ["CHUNKER", "CHUNKERS", "LONGEST_WORDS", "TARGET_WORDS", "Encode", "UnknownChunkerError", "check_chunker", "chunk_spans"]

CHUNKER = "structural-180-v1"
_STRUCTURAL = "structural-180-v2"
_SEMANTIC = "semantic-180-v1"
_WINDOW = re.compile(r"sentence-window-([1-9]\d?)-(\d\d?)-v1")
CHUNKERS = (CHUNKER, _STRUCTURAL, "sentence-window-<sentences>-<overlap>-v1", _SEMANTIC)


class UnknownChunkerError(ValueError):
    """Raised for a name that no chunker has."""

    def __init__(self, name: str) -> None:
        super().__init__(f"unknown chunker {name!r}; known: {list(CHUNKERS)}, with less overlap than sentences")


def check_chunker(name: str) -> str:
    """Return `name` if a chunker has it; raise UnknownChunkerError otherwise."""
    if name not in {CHUNKER, _STRUCTURAL, _SEMANTIC}:
        _window(name)
    return name


def chunk_spans(text: str, chunker: str = CHUNKER, encode: Encode | None = None) -> list[tuple[int, int]]:
    """Return the half-open character ranges of the chunks of `text`, in order; none for blank text.

    Only the semantic chunker needs `encode`, which returns unit vectors (n, d); raise ValueError where it is missing.
    """
    if chunker == CHUNKER:
        return paragraphs(text)
    if chunker == _STRUCTURAL:
        return structural(text)
    if chunker == _SEMANTIC:
        if encode is None:
            raise ValueError(f"chunker {chunker!r} needs an encoder")
        return semantic(text, encode)
    return sentence_windows(text, *_window(chunker))


def _window(name: str) -> tuple[int, int]:
    match = _WINDOW.fullmatch(name)
    if match is None or int(match[2]) >= int(match[1]):
        raise UnknownChunkerError(name)
    return int(match[1]), int(match[2])
