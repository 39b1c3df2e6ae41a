"""What an index of one encoder can do, whatever engine holds it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from encoders.encoder import Vectors
from knowledge.schema import Chunk, Kind
from knowledge.visibility import Visibility


class IndexMissingError(RuntimeError):
    """Raised when there is no index for the encoder; `found` names the encoders that have one."""

    def __init__(self, encoder: str, found: Sequence[str]) -> None:
        super().__init__(f"no index for encoder {encoder!r}; there is one for {sorted(found)}")
        self.found = tuple(found)


class Hit(NamedTuple):
    """A chunk that a leg found, with that leg's own score; a higher one is better."""

    chunk: Chunk
    score: float


@dataclass(frozen=True)
class Holding:
    """How much of one collection the index holds: documents in force, chunks of all versions, and versions that no query sees now."""

    documents: int
    chunks: int
    superseded: int = 0
    expired: int = 0
    withdrawn: int = 0


@dataclass(frozen=True)
class Entry:
    """What the index says of one chunk without its text: enough to tell whether it is what the source says."""

    chunk_id: str
    document_key: str
    collection: str
    version: str
    position: int
    content_hash: str
    metadata_hash: str
    access_hash: str
    embedded: bool
    closed: bool
    withdrawn: bool


class Index(Protocol):
    """The fluid and the anchored index of one encoder.

    One process writes; any number read. A reader sees a write as soon as the call that made it has returned.
    """

    @property
    def encoder(self) -> str:
        """Key of the encoder whose vectors it holds."""
        ...

    def versions(self) -> dict[str, int]:
        """Return the version of each table by kind; it grows with every change."""
        ...

    def lexical(self, query: str, visible: Visibility, limit: int) -> list[Hit]:
        """Return the best visible chunks by BM25, best first."""
        ...

    def nearest(self, vector: Vectors, visible: Visibility, limit: int) -> list[Hit]:
        """Return the best visible chunks by cosine with a unit vector (384,), best first."""
        ...

    def cosines(self, vector: Vectors, chunks: Sequence[Chunk]) -> dict[str, float]:
        """Return the cosines of these chunks with a unit vector (384,), by chunk id; those that wait for theirs are left out."""
        ...

    def documents(self, kind: Kind, keys: Sequence[str], *, vectors: bool = True) -> dict[str, list[Chunk]]:
        """Return every stored chunk of every version of the documents, by document key.

        Without `vectors` an engine that pays for them may leave an empty list in the place of one.
        """
        ...

    def replace(self, kind: Kind, documents: Mapping[str, Sequence[Chunk]], positions: Mapping[str, int] | None = None) -> int:
        """Make these the only chunks of these documents in one commit; return the version that holds them.

        `positions` are the places of the changes in their source by document key: a document of which the index holds a
        later change is left as it is, so that a repeat or a change that arrives late moves nothing back.
        """
        ...

    def update(self, kind: Kind, chunks: Sequence[Chunk]) -> int:
        """Overwrite chunks that are there and hold no later change, by chunk id, in one commit; return the version.

        Others are left: a chunk that was replaced or deleted since it was read stays replaced or deleted.
        """
        ...

    def without_vector(self, kind: Kind, limit: int) -> list[Chunk]:
        """Return chunks that wait for their vector, those of the earliest changes first."""
        ...

    def inventory(self, kind: Kind, collection: str) -> list[Entry]:
        """Return every stored chunk of a collection without its text, in no order."""
        ...

    def tidy(self) -> None:
        """Fold recent changes into the search structures; what is found stays the same."""
        ...

    def holdings(self) -> dict[str, Holding]:
        """Return what each collection holds, by name."""
        ...


@runtime_checkable
class Paired(Protocol):
    """An index that answers both legs in one request, which costs less than two."""

    def both(self, query: str, vector: Vectors, visible: Visibility, limit: int) -> tuple[list[Hit], list[Hit]]:
        """Return what `lexical` and `nearest` would."""
        ...

    def versions_before(self, seconds: float) -> dict[str, int]:
        """Return versions that were asked for at most so long ago; what is searched now is at least these."""
        ...


@runtime_checkable
class Remembering(Protocol):
    """An index whose searches read from memory, which follows every commit with the next query."""

    def refresh(self) -> None:
        """Follow what has changed before a query has to, and forget what was deleted."""
        ...


@runtime_checkable
class Fragmented(Protocol):
    """An index whose tables fall into pieces with every commit, until they are tidied."""

    def fragments(self) -> dict[str, int]:
        """Return the number of pieces of each table by kind."""
        ...
