"""Turns a version of a document into chunks with vectors, embedding only texts whose vector is not known yet."""

import datetime as dt
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from encoders.encoder import Vectors
from knowledge.chunking import CHUNKER, Encode, chunk_spans
from knowledge.schema import Chunk, Document, digest, label_key, metadata_pairs


class Embeds(Protocol):
    """Whatever turns texts into unit vectors: the encoder, or a cache before it."""

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return float32 unit vectors (n, 384), one row per text, in order."""
        ...


def content_hash(document: Document, encoder: str) -> str:
    """Return what changes when chunks or vectors of the version would."""
    return content_hash_of(document.title, digest_text(document.text), document.chunker or CHUNKER, encoder)


def content_hash_of(title: str, document_sha256: str, chunker: str, encoder: str) -> str:
    """Return the content hash from what every chunk of the version knows."""
    return digest(title, document_sha256, chunker, encoder)


def access_hash(document: Document) -> str:
    """Return what changes when somebody else may see the version."""
    return digest(document.tenant, label_key(document.labels))


def metadata_hash(document: Document) -> str:
    """Return what changes when metadata, dates or provenance of the version do."""
    return digest(
        metadata_pairs(document.metadata),
        document.effective_from,
        document.expires_at,
        document.source,
        document.licence,
    )


def search_text(title: str, text: str) -> str:
    """Return what is searched for a chunk, by both legs."""
    return f"{title}\n{text}" if title else text


def cut(document: Document, encoder: str, now: dt.datetime, encode: Encode | None = None) -> list[Chunk]:
    """Return the chunks of a version, still without vectors; a chunker that goes by meaning needs `encode`."""
    chunker = document.chunker or CHUNKER
    content, metadata, access, sha = (
        content_hash(document, encoder),
        metadata_hash(document),
        access_hash(document),
        digest_text(document.text),
    )
    position = document.position or position_of(now)
    return [
        Chunk(
            chunk_id=f"{document.key}@{_apart(document.version)}#{number}",
            document_key=document.key,
            document_id=document.document_id,
            collection=document.collection,
            kind=document.kind.value,
            title=document.title,
            text=document.text[start:end],
            search_text=search_text(document.title, document.text[start:end]),
            vector=None,
            version=document.version,
            effective_from=document.effective_from or now,
            superseded_at=None,
            expires_at=document.expires_at,
            withdrawn_at=None,
            tenant=document.tenant,
            label_key=label_key(document.labels),
            metadata=metadata_pairs(document.metadata),
            source=document.source,
            licence=document.licence,
            start=start,
            end=end,
            document_sha256=sha,
            chunker=chunker,
            content_hash=content,
            metadata_hash=metadata,
            access_hash=access,
            position=position,
            closed_position=None,
        )
        for number, (start, end) in enumerate(chunk_spans(document.text, chunker, encode))
    ]


def _apart(version: str) -> str:
    """Return a version without the sign that parts it from its document's name, so that no two versions share a chunk's name."""
    return version.replace("%", "%25").replace("@", "%40")


def position_of(moment: dt.datetime) -> int:
    """Return the place of a change that was made by hand: microseconds since 1970."""
    return int(moment.timestamp() * 1_000_000)


def digest_text(text: str) -> str:
    """Return the SHA-256 of a text in UTF-8, hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def embed(chunks: Sequence[Chunk], encoder: Embeds, known: Mapping[str, list[float]] | None = None) -> list[Chunk]:
    """Return the chunks with vectors, taking those of `known` search texts from there."""
    vectors = dict(known or {})
    missing = [text for text in dict.fromkeys(chunk.search_text for chunk in chunks) if text not in vectors]
    for text, vector in zip(missing, encoder.encode(missing), strict=True):
        vectors[text] = vector.tolist()
    return [replace(chunk, vector=vectors[chunk.search_text]) for chunk in chunks]


def reuse(chunks: Sequence[Chunk], known: Mapping[str, list[float]]) -> list[Chunk]:
    """Return the chunks with the vectors of `known` search texts; the others have to be embedded yet."""
    return [replace(chunk, vector=known.get(chunk.search_text)) for chunk in chunks]


def known_vectors(chunks: Iterable[Chunk]) -> dict[str, list[float]]:
    """Return the vector of each stored search text whose vector was read."""
    return {chunk.search_text: chunk.vector for chunk in chunks if chunk.vector}
