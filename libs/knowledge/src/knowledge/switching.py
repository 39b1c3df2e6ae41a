"""An index and an encoder that can be exchanged, together and while they are in use."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from encoders.encoder import Vectors
from knowledge.index import Entry, Fragmented, Hit, Holding, Index
from knowledge.preparation import Embeds
from knowledge.schema import Chunk, Kind
from knowledge.visibility import Visibility


@dataclass(frozen=True)
class Pair:
    """An index and the encoder of its vectors."""

    index: Index
    encoder: Embeds


class Switchable:
    """Whatever is served now; it is an index and an encoder itself, so that its users need not know."""

    def __init__(self, index: Index, encoder: Embeds) -> None:
        """Begin with this pair."""
        self.current = Pair(index, encoder)

    def switch(self, index: Index, encoder: Embeds) -> None:
        """Take another pair from now on; the caller keeps writers away meanwhile."""
        self.current = Pair(index, encoder)

    @property
    def encoder(self) -> str:
        """Key of the encoder whose vectors the index holds."""
        return self.current.index.encoder

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return float32 unit vectors (n, 384) of the encoder in use, one row per text, in order."""
        return self.current.encoder.encode(texts)

    def versions(self) -> dict[str, int]:
        """Return the version of each table by kind."""
        return self.current.index.versions()

    def lexical(self, query: str, visible: Visibility, limit: int) -> list[Hit]:
        """Return the best visible chunks by BM25, best first."""
        return self.current.index.lexical(query, visible, limit)

    def nearest(self, vector: Vectors, visible: Visibility, limit: int) -> list[Hit]:
        """Return the best visible chunks by cosine with a unit vector (384,), best first."""
        return self.current.index.nearest(vector, visible, limit)

    def cosines(self, vector: Vectors, chunks: Sequence[Chunk]) -> dict[str, float]:
        """Return the cosines of these chunks with a unit vector (384,), by chunk id."""
        return self.current.index.cosines(vector, chunks)

    def documents(self, kind: Kind, keys: Sequence[str], *, vectors: bool = True) -> dict[str, list[Chunk]]:
        """Return every stored chunk of every version of the documents, by document key."""
        return self.current.index.documents(kind, keys, vectors=vectors)

    def replace(self, kind: Kind, documents: Mapping[str, Sequence[Chunk]], positions: Mapping[str, int] | None = None) -> int:
        """Make these the only chunks of these documents in one commit; return the version that holds them."""
        return self.current.index.replace(kind, documents, positions)

    def update(self, kind: Kind, chunks: Sequence[Chunk]) -> int:
        """Overwrite chunks that are there, by chunk id, in one commit; return the version."""
        return self.current.index.update(kind, chunks)

    def without_vector(self, kind: Kind, limit: int) -> list[Chunk]:
        """Return chunks that wait for their vector, those of the earliest changes first."""
        return self.current.index.without_vector(kind, limit)

    def inventory(self, kind: Kind, collection: str) -> list[Entry]:
        """Return every stored chunk of a collection without its text, in no order."""
        return self.current.index.inventory(kind, collection)

    def tidy(self) -> None:
        """Fold recent changes into the search structures."""
        self.current.index.tidy()

    def fragments(self) -> dict[str, int]:
        """Return into how many pieces each table has fallen; empty where the index sees to it."""
        index = self.current.index
        return index.fragments() if isinstance(index, Fragmented) else {}

    def holdings(self) -> dict[str, Holding]:
        """Return what each collection holds, by name."""
        return self.current.index.holdings()
