"""What a fluid document is made of: what its source says now, and copies of what it said before."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from knowledge.preparation import known_vectors, reuse
from knowledge.schema import Chunk

# What `alike` leaves out: a vector may follow, a place may be older than the last change that said the same.
_NOT_SAID = frozenset({"vector", "position", "effective_from"})


def present(chunks: Iterable[Chunk]) -> list[Chunk]:
    """Return the chunks of what the source says now, in the order of the text."""
    return sorted((chunk for chunk in chunks if chunk.closed_position is None), key=lambda chunk: (chunk.start, chunk.chunk_id))


def past(chunks: Iterable[Chunk]) -> list[Chunk]:
    """Return the closed copies."""
    return [chunk for chunk in chunks if chunk.closed_position is not None]


def place(chunks: Iterable[Chunk], source: str | None = None) -> int:
    """Return the place of the last change that is stored, of a `source` where one is given; -1 where nothing is.

    Places of two sources say nothing about each other.
    """
    present = (chunk for chunk in chunks if chunk.closed_position is None)
    return max((chunk.position for chunk in present if source is None or chunk.source == source), default=-1)


def same_hashes(stored: Sequence[Chunk], fresh: Sequence[Chunk]) -> bool:
    """Return whether both say the same, by their hashes."""
    return [_hashes(chunk) for chunk in stored] == [_hashes(chunk) for chunk in fresh]


def alike(stored: Sequence[Chunk], fresh: Sequence[Chunk]) -> bool:
    """Return whether both say the same in every column, trusting no hash; what was said before may hold since longer."""
    pairs = list(zip(stored, fresh, strict=False))
    since = all(one.effective_from <= other.effective_from for one, other in pairs)
    return len(stored) == len(fresh) and since and all(_said(one) == _said(other) for one, other in pairs)


def next_state(stored: Sequence[Chunk], fresh: Sequence[Chunk], known: Mapping[str, list[float]], *, keep: bool) -> list[Chunk]:
    """Return all chunks of a document once `fresh` is what its source says; `keep` leaves closed copies of what it said before."""
    vectors = {**known, **known_vectors(stored)}
    copies = past(stored)
    if keep and fresh:
        position = fresh[0].position
        copies += [_closed(chunk, position) for chunk in present(stored) if chunk.position < position]
    # Who may see it is a matter of now, for what was said before too.
    return [*reuse(fresh, vectors), *(_seen_like(copy, fresh[0]) for copy in copies)] if fresh else []


def _closed(chunk: Chunk, position: int) -> Chunk:
    number = chunk.chunk_id.rpartition("#")[2]
    return replace(chunk, chunk_id=f"{chunk.document_key}@{chunk.position}#{number}", closed_position=position)


def _seen_like(copy: Chunk, now: Chunk) -> Chunk:
    return replace(copy, tenant=now.tenant, label_key=now.label_key, access_hash=now.access_hash, expires_at=now.expires_at)


def _hashes(chunk: Chunk) -> tuple[str, str, str, str]:
    return (chunk.chunk_id, chunk.content_hash, chunk.metadata_hash, chunk.access_hash)


def _said(chunk: Chunk) -> dict[str, object]:
    return {name: value for name, value in chunk.row().items() if name not in _NOT_SAID}
