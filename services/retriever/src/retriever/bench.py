"""Indexes an evaluation set in a folder of its own and searches it with the product's own code."""

import datetime as dt
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from encoders import Encoder
from encoders.vector_cache import VectorCache
from knowledge.chunking import CHUNKER
from knowledge.index import Index
from knowledge.preparation import Embeds, cut, embed
from knowledge.schema import Document, Kind
from knowledge.visibility import Visibility
from retriever.options import Options
from retriever.retrieval import LEGS, Found, Retrieval
from retriever.settings import Fusion, RankingSettings

EPOCH = dt.datetime(1900, 1, 1, tzinfo=dt.UTC)
_GROUP = 128


@dataclass(frozen=True)
class Version:
    """A version of a document and when the next one took its place."""

    document: Document
    superseded_at: dt.datetime | None = None


class Bench:
    """An index of one evaluation set and the search over it."""

    def __init__(
        self,
        create: Callable[[str], Index],
        versions: Sequence[Version],
        *,
        threads: int = 2,
        cache: Path | None = None,
        ranking: RankingSettings | None = None,
        chunker: str = "",
    ) -> None:
        """Chunk, embed and index in what `create` makes for the encoder; `cache` keeps vectors, the rest has defaults."""
        started = time.perf_counter()
        encoder = Encoder.load(threads=threads)
        self.encoder = encoder.identity.key()
        self.ranking = ranking or RankingSettings()
        self._chunker = chunker or CHUNKER
        index = create(self.encoder)
        self.chunks = _fill(index, VectorCache(encoder, cache) if cache else encoder, versions, self._chunker)
        self._retrieval = Retrieval(index, encoder, self.ranking)
        self.indexed_seconds = time.perf_counter() - started

    async def rank(
        self, query: str, at: dt.datetime, legs: Sequence[str] = LEGS, *, rerank: bool = True, fusion: Fusion | None = None
    ) -> Found:
        """Return every candidate that is in force at a time, best first."""
        return await self._retrieval.rank(query, Visibility("eval", frozenset(), ("eval",), at), legs, rerank=rerank, fusion=fusion)

    async def find(self, query: str, at: dt.datetime, options: Options) -> Found:
        """Return the same for a query and what the options search beside it."""
        return await self._retrieval.find(query, Visibility("eval", frozenset(), ("eval",), at), options)

    def describe(self) -> dict[str, object]:
        """Return the versions of what is judged."""
        return {"encoder": self.encoder, "chunker": self._chunker, "chunks": self.chunks, "ranking": self.ranking.model_dump(mode="json")}


def document(name: str, title: str, text: str, *, version: str = "", effective_from: dt.datetime = EPOCH) -> Document:
    """Return a document of the evaluation's one collection; where it has a title alone, that is its text."""
    return Document("eval", Kind.ANCHORED, name, title, text if text.strip() else title, version=version, effective_from=effective_from)


def _fill(index: Index, encoder: Embeds, versions: Sequence[Version], chunker: str) -> int:
    """Index in groups that keep all versions of a document together; return the number of chunks."""
    by_document = [list(group) for _, group in groupby(sorted(versions, key=lambda v: v.document.key), key=lambda v: v.document.key)]
    total = 0
    for first in range(0, len(by_document), _GROUP):
        group = [version for part in by_document[first : first + _GROUP] for version in part]
        pieces = [
            replace(chunk, superseded_at=version.superseded_at)
            for version in group
            for chunk in cut(replace(version.document, chunker=chunker), index.encoder, EPOCH, encoder.encode)
        ]
        chunks = embed(pieces, encoder)
        index.replace(Kind.ANCHORED, {key: list(part) for key, part in groupby(chunks, key=lambda chunk: chunk.document_key)})
        total += len(chunks)
        print(f"indexed {min(first + _GROUP, len(by_document))} of {len(by_document)} documents", file=sys.stderr)  # noqa: T201 - progress
    index.tidy()
    return total
