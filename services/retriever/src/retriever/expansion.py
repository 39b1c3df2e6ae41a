"""Joins neighbouring chunks of the same version to a passage, as far as a token budget allows."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from knowledge.index import Index
from knowledge.schema import Chunk, Kind
from retriever.fusion import Candidate
from retriever.pieces import Count, Piece, joined, tokens

# A neighbour differs from the chunk in these alone; who may see one may see the other.
_OWN = frozenset({"chunk_id", "text", "search_text", "vector", "start", "end"})


def expanded(index: Index, candidates: Sequence[Candidate], limit: Callable[[Candidate], int], count: Count) -> list[Candidate]:
    """Return the candidates, each grown by the chunks after and before it to at most `limit` tokens; 0 leaves it as it is.

    A candidate that a better one has grown over is left out. Neighbours are of the same version and have the same labels,
    dates and places, so that growing shows nothing that the predicate of the query would not.
    """
    stored = _stored(index, [candidate.chunk for candidate in candidates if limit(candidate)])
    result: list[Candidate] = []
    shown: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for candidate in candidates:
        chunk = candidate.chunk
        ranges = shown.setdefault((chunk.document_key, chunk.document_sha256), [])
        if any(start <= chunk.start and chunk.end <= end for start, end in ranges):
            continue
        most = limit(candidate)
        grown = _grown(candidate, stored.get(chunk.document_key, ()), most, count) if most else candidate
        ranges.append((grown.chunk.start, grown.chunk.end))
        result.append(grown)
    return result


def _stored(index: Index, chunks: Sequence[Chunk]) -> dict[str, list[Chunk]]:
    found: dict[str, list[Chunk]] = {}
    for kind in Kind:
        keys = sorted({chunk.document_key for chunk in chunks if chunk.kind == kind})
        found |= index.documents(kind, keys) if keys else {}
    return found


def _grown(candidate: Candidate, stored: Sequence[Chunk], most: int, count: Count) -> Candidate:
    """Return the candidate with its neighbours, those after it first in turn, while they fit."""
    own = candidate.chunk
    version = sorted((chunk for chunk in stored if _together(chunk, own)), key=lambda chunk: (chunk.start, chunk.end))
    places = [number for number, chunk in enumerate(version) if chunk.chunk_id == own.chunk_id]
    if not places:
        return candidate
    first = last = places[0]
    used, forward, stuck = tokens(own.text, count), True, 0
    while stuck < 2:
        number = last + 1 if forward else first - 1
        fits = 0 <= number < len(version) and used + (cost := tokens(version[number].text, count)) <= most
        if fits:
            first, last, used, stuck = min(first, number), max(last, number), used + cost, 0
        else:
            stuck += 1
        forward = not forward
    pieces = _pieces(version[first : last + 1])
    return replace(candidate, chunk=joined(own, pieces), pieces=tuple(pieces) if len(pieces) > 1 else ())


def _together(chunk: Chunk, own: Chunk) -> bool:
    return all(getattr(chunk, name) == getattr(own, name) for name in Chunk.__dataclass_fields__ if name not in _OWN)


def _pieces(chunks: Sequence[Chunk]) -> list[Piece]:
    """Return the chunks as pieces that follow each other: what the next one repeats is cut off it."""
    pieces = [Piece(chunks[0].start, chunks[0].end, chunks[0].text)]
    for chunk in chunks[1:]:
        end = pieces[-1].end
        if chunk.end <= end:
            continue
        fresh = Piece(max(chunk.start, end), chunk.end, chunk.text[max(end - chunk.start, 0) :])
        if fresh.start == end:
            before = pieces.pop()
            fresh = Piece(before.start, fresh.end, before.text + fresh.text)
        pieces.append(fresh)
    return pieces
