"""Takes a file that arrives in pieces, reads it and stores it; nothing of it stays where that fails."""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterable, AsyncIterator, Container, Mapping
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any

from prometheus_client import Counter

from chassis.errors import InvalidArgumentError, NotFoundError, ResourceExhaustedError, ServiceError
from chassis.rpc import to_time
from ingestor import admission
from ingestor.announcing import Announcer
from ingestor.catalogue import Collection
from ingestor.library import Library, Outcome
from ingestor.parsing.isolated import DocumentError, DocumentParser
from ingestor.parsing.parsed import Parsed
from ingestor.sources import page
from knowledge.schema import Document
from strata.ingestor.v1 import knowledge_service_pb2 as pb

UPLOADS = Counter("strata_knowledge_uploads_total", "Files that were uploaded and changed something.", ["collection", "format"])
_DROP_BYTES, _DROP_SECONDS = 512 * 1024 * 1024, 10.0
_LONGEST_NAME = 255
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# A file may say what it is; whose it is says who sends it.
_NEVER_FROM_A_FILE = frozenset({"tenant"})


class Uploads:
    """Reads a few files at a time; more are told to come back."""

    def __init__(
        self,
        collections: Mapping[str, Collection],
        library: Library,
        announcer: Announcer,
        parser: DocumentParser,
        *,
        at_once: int = 4,
        fed: Container[str] = (),
    ) -> None:
        """Store into `library`; what `parser` allows is the bound of a file, and collections that are `fed` take none."""
        self._collections, self._library, self._announcer, self._parser = collections, library, announcer, parser
        self._fed = fed
        self._free = at_once

    async def take(self, requests: AsyncIterable[pb.UploadDocumentRequest]) -> pb.UploadDocumentResponse:
        """Store one version; it is searchable when this returns. Raise ServiceError, with nothing stored, otherwise."""
        if not self._free:
            raise ResourceExhaustedError("too many uploads at once; try again")
        self._free -= 1
        try:
            header, data = await self._received(aiter(requests))
            name = file_name(header.file_name)
            parsed = await asyncio.to_thread(self._parser.parse, data, name, header.content_type)
            del data
            document = to_document(self._collection(header.collection), header.document, name, parsed)
            (outcome,) = await asyncio.to_thread(self._library.put, [document])
        finally:
            self._free += 1
        if outcome.refusal is not None:
            raise outcome.refusal
        if outcome.change is not None:
            UPLOADS.labels(collection=header.collection, format=parsed.format).inc()
            await self._announcer.flush()
        return _response(outcome, parsed)

    async def _received(self, requests: AsyncIterator[pb.UploadDocumentRequest]) -> tuple[pb.UploadHeader, bytes]:
        """Return header and content; of what is wrong or too large nothing more is kept as soon as that is known."""
        try:
            return await self._collected(requests)
        except ServiceError:
            # Who is cut off while it writes does not learn why; what still comes is thrown away, within a bound.
            dropped = 0
            with suppress(TimeoutError):
                async with asyncio.timeout(_DROP_SECONDS):
                    async for request in requests:
                        dropped += len(request.content)
                        if dropped > _DROP_BYTES:
                            break
            raise

    async def _collected(self, requests: AsyncIterator[pb.UploadDocumentRequest]) -> tuple[pb.UploadHeader, bytes]:
        header: pb.UploadHeader | None = None
        data = bytearray()
        async for request in requests:
            part = request.WhichOneof("part")
            if header is None:
                header = request.header
                self._check(header, first=part == "header")
            elif part == "sha256":
                return header, _whole(bytes(data), request.sha256)
            elif part == "content":
                data += request.content
                self._fits(len(data))
            else:
                raise InvalidArgumentError("only the first piece is a header")
        # A connection that breaks ends the pieces like a file that ends; without its digest nothing tells them apart.
        raise InvalidArgumentError(f"the upload ended after {len(data)} bytes and before its digest")

    def _check(self, header: pb.UploadHeader, *, first: bool) -> None:
        if not first:
            raise InvalidArgumentError("the first piece must be the header")
        admission.check_by_hand(self._collection(header.collection).name, self._fed)
        file_name(header.file_name)
        if header.document.text:
            raise InvalidArgumentError("field 'text' belongs into PutDocument; the text of an upload is its file")
        self._fits(header.size_bytes)

    def _fits(self, size: int) -> None:
        if size > (limit := self._parser.limits.file_bytes):
            raise DocumentError(f"the file has {size} bytes or more; the limit is {limit}", code="document_too_large")

    def _collection(self, name: str) -> Collection:
        if name not in self._collections:
            raise NotFoundError(f"unknown collection {name!r}; known: {sorted(self._collections)}")
        return self._collections[name]


def _whole(data: bytes, sha256: str) -> bytes:
    if hashlib.sha256(data).hexdigest() != sha256:
        raise InvalidArgumentError("the content is not what its digest says")
    return data


def file_name(name: str) -> str:
    """Return `name` if it is the plain name of a file; raise InvalidArgumentError for a path or worse."""
    if not name.strip() or len(name) > _LONGEST_NAME or name in {".", ".."} or _CONTROL.search(name) or "/" in name or "\\" in name:
        raise InvalidArgumentError(f"field 'file_name' must be a plain name of 1 to {_LONGEST_NAME} characters, got {name[:80]!r}")
    return name


def to_document(collection: Collection, given: pb.Document, name: str, parsed: Parsed) -> Document:
    """Return the document of an upload: what the sender says comes before what the file says."""
    row: dict[str, Any] = {field: value for field, value in parsed.fields.items() if field not in _NEVER_FROM_A_FILE}
    row.setdefault("id", PurePosixPath(name).stem)
    said = {field: getattr(given, field) for field in ("id", "title", "version", "source", "licence")}
    row.update({field: value for field, value in said.items() if value})
    for field in ("effective_from", "expires_at"):
        if given.HasField(field):
            row[field] = to_time(getattr(given, field), field).isoformat()
    if given.labels:
        row["labels"] = list(given.labels)
    if given.source:
        row.pop("url", None)
    described = row.get("metadata")
    row["metadata"] = {**(described if isinstance(described, dict) else {}), **given.metadata}
    document = page(collection, name, parsed, {**row, "tenant": given.tenant})
    if isinstance(document, ServiceError):
        raise document
    admission.check_sent(document)
    return document


def _response(outcome: Outcome, parsed: Parsed) -> pb.UploadDocumentResponse:
    stored = outcome.document
    version = stored.version or (f"{stored.effective_from:%Y-%m-%d}" if stored.effective_from and stored.kind == "anchored" else "")
    return pb.UploadDocumentResponse(
        changed=outcome.change is not None,
        chunks=outcome.chunks,
        supersedes=outcome.supersedes,
        document_id=stored.document_id,
        version=version,
        title=stored.title,
        format=parsed.format,
        characters=len(parsed.text),
    )
