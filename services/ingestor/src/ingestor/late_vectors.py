"""Gives chunks that were stored without a vector theirs, without keeping other writers away while they are embedded."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from knowledge.index import Index
from knowledge.schema import Kind

if TYPE_CHECKING:
    from ingestor.library import Library

_TEXTS_AT_ONCE = 64


def fill(index: Index, kind: Kind, keys: Sequence[str], vectors: Mapping[str, list[float]]) -> bool:
    """Store the vectors of texts in chunks of the documents that have none; return whether any was. Other writers are kept away."""
    chunks = [chunk for some in index.documents(kind, keys, vectors=False).values() for chunk in some]
    filled = [replace(c, vector=vectors[c.search_text]) for c in chunks if c.vector is None and c.search_text in vectors]
    if filled:
        index.update(kind, filled)
    return bool(filled)


def complete(library: "Library", kind: Kind) -> int:
    """Embed what of a kind still waits for its vector after a process ended in between; return how many texts."""
    count, before = 0, dict[str, tuple[str, ...]]()
    while (waiting := library.waiting(_TEXTS_AT_ONCE, kind)) and waiting != before:
        texts = list(dict.fromkeys(text for some in waiting.values() for text in some))
        library.fill(list(waiting), library.encode(texts), kind)
        count, before = count + len(texts), waiting
    return count
