"""Documents over HTTP: uploads, withdrawals, and what collections there are."""

import hashlib
import time
from collections.abc import AsyncIterator
from typing import Any

from chassis import rpc
from chassis.errors import NotFoundError, ServiceError
from gateway.admission import trace_id
from gateway.forms import Form
from gateway.http.chat import Parts
from gateway.http.exchange import Exchange
from gateway.knowledge_body import WRITE_ALL, DocumentBody, from_form, from_json, owner
from gateway.refusals import RefusedError
from strata.gateway.v1.gateway_events_pb2 import Caller
from strata.ingestor.v1 import knowledge_service_pb2 as pb
from strata.ingestor.v1.knowledge_service_pb2_grpc import KnowledgeServiceStub

KNOWLEDGE = "/v1/knowledge"
READ, WRITE = "knowledge:read", "knowledge:write"
_NO_TRACE = "0" * 32
_PIECE_BYTES = 64 * 1024
# What ingestor says of these is about the caller's own document.
_SHOWN = frozenset({
    "invalid_request", "document_too_large", "unsupported_document", "unreadable_document", "encrypted_document",
    "document_without_text", "binary_as_text", "missing_effective_date", "version_conflict", "fed_collection",
})  # fmt: skip


class Knowledge:
    """Answers everything below `/v1/knowledge/`."""

    def __init__(self, parts: Parts, ingestor: KnowledgeServiceStub) -> None:
        """Bind the parts and the service that keeps documents."""
        self._parts, self._ingestor = parts, ingestor

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request; raise ServiceError for whoever may not, and for what is wrong."""
        caller = self._parts.authenticator.authenticate(exchange.header(b"authorization"))
        what, _, rest = exchange.path.removeprefix(f"{KNOWLEDGE}/").partition("/")
        collection, _, rest = rest.partition("/")
        documents, _, document_id = rest.partition("/")
        route = (exchange.method, what, bool(collection), documents, bool(document_id))
        if route == ("GET", "collections", False, "", False):
            return await self._list(exchange, caller)
        handlers = {
            ("POST", "collections", True, "documents", False): self._put,
            ("DELETE", "collections", True, "documents", True): self._withdraw,
        }
        if (handler := handlers.get(route)) is None:
            raise RefusedError("not_found")
        self._parts.admission.check(caller, WRITE)
        share = self._parts.gate.enter(caller.tenant, 0)
        try:
            await handler(exchange, caller, collection, document_id)
        finally:
            share.leave()

    async def _list(self, exchange: Exchange, caller: Caller) -> None:
        """List the collections; how much other tenants keep in them is shown to nobody but who writes for all."""
        if READ not in caller.permissions and WRITE not in caller.permissions:
            raise RefusedError("permission_denied")
        listed: pb.ListCollectionsResponse = await rpc.call(
            self._ingestor.ListCollections, pb.ListCollectionsRequest(), timeout=self._parts.settings.rpc_timeout_seconds
        )
        data = []
        for entry in listed.collections:
            shown: dict[str, Any] = {"id": entry.name, "object": "knowledge.collection"}
            shown |= {name: getattr(entry, name) for name in ("kind", "owner", "review_date", "licence")}
            if WRITE_ALL in caller.permissions:
                shown |= {"documents": entry.documents, "chunks": entry.chunks}
            data.append(shown)
        await exchange.respond_json({"object": "list", "data": data})

    async def _put(self, exchange: Exchange, caller: Caller, collection: str, _: str) -> None:
        started = time.perf_counter()
        details: dict[str, Any] = {"action": "put", "collection": collection}
        try:
            if exchange.header(b"content-type").partition(";")[0].strip().lower() == "application/json":
                answer = await self._text(exchange, caller, collection, details)
            else:
                answer = await self._file(exchange, caller, collection, details)
        except ServiceError as error:
            await self._record(exchange, caller, details, started, code=error.code)
            raise _shown(error) from error
        details |= {"document_id": answer["id"], "version": answer["version"], "changed": answer["changed"]}
        await self._record(exchange, caller, details, started)
        await exchange.respond_json(
            {"object": "knowledge.document", "collection": collection, **answer}, status=201 if answer["changed"] else 200
        )

    async def _text(self, exchange: Exchange, caller: Caller, collection: str, details: dict[str, Any]) -> dict[str, Any]:
        settings = self._parts.settings
        raw = await exchange.body(2 * settings.max_text_bytes, settings.body_seconds)
        body = from_json(raw)
        size = len(body.text.encode(errors="replace"))
        if size > settings.max_text_bytes:
            raise _too_large(settings.max_text_bytes)
        details |= {"document_id": body.id, "content_sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)}
        request = pb.PutDocumentRequest(collection=collection, document=body.to_message(caller))
        stored: pb.PutDocumentResponse = await rpc.call(self._ingestor.PutDocument, request, timeout=settings.upload_seconds)
        return {
            "id": body.id,
            "version": stored.version,
            "changed": stored.changed,
            "chunks": stored.chunks,
            "supersedes": stored.supersedes,
            "title": body.title,
        }

    async def _file(self, exchange: Exchange, caller: Caller, collection: str, details: dict[str, Any]) -> dict[str, Any]:
        settings = self._parts.settings
        limit = settings.max_document_bytes
        declared = exchange.header(b"content-length")
        # A form is a little larger than its file.
        if declared.isdigit() and int(declared) > limit + _PIECE_BYTES:
            raise _too_large(limit)
        form = Form(exchange.header(b"content-type"), exchange.chunks(settings.body_seconds))
        await form.begin()
        body = from_form(form.fields)
        details["file_name"] = form.file_name[:255]
        pieces = self._pieces(form, body, caller, collection, details)
        answer: pb.UploadDocumentResponse = await rpc.send(self._ingestor.UploadDocument, pieces, timeout=settings.upload_seconds)
        return {
            "id": answer.document_id,
            "version": answer.version,
            "changed": answer.changed,
            "chunks": answer.chunks,
            "supersedes": answer.supersedes,
            "title": answer.title,
            "format": answer.format,
            "characters": answer.characters,
        }

    async def _pieces(
        self, form: Form, body: DocumentBody, caller: Caller, collection: str, details: dict[str, Any]
    ) -> AsyncIterator[pb.UploadDocumentRequest]:
        """Yield the messages of an upload; raise RefusedError as soon as the file is too large."""
        header = pb.UploadHeader(
            collection=collection, file_name=form.file_name, content_type=form.file_type, document=body.to_message(caller)
        )
        yield pb.UploadDocumentRequest(header=header)
        limit, size, digest, waiting = self._parts.settings.max_document_bytes, 0, hashlib.sha256(), bytearray()
        async for data in form.content():
            size += len(data)
            if size > limit:
                raise _too_large(limit)
            digest.update(data)
            waiting += data
            if len(waiting) >= _PIECE_BYTES:
                yield pb.UploadDocumentRequest(content=bytes(waiting))
                waiting.clear()
        yield pb.UploadDocumentRequest(content=bytes(waiting))
        yield pb.UploadDocumentRequest(sha256=digest.hexdigest())
        details |= {"content_sha256": digest.hexdigest(), "bytes": size}

    async def _withdraw(self, exchange: Exchange, caller: Caller, collection: str, document_id: str) -> None:
        started, query = time.perf_counter(), exchange.query_fields({"version", "reason", "tenant"})
        details: dict[str, Any] = {"action": "withdraw", "collection": collection, "document_id": document_id, **query}
        try:
            request = pb.DeleteDocumentRequest(
                collection=collection,
                document_id=document_id,
                version=query.get("version", ""),
                reason=query.get("reason", ""),
                tenant=owner(caller, query.get("tenant", "")),
            )
            timeout = self._parts.settings.upload_seconds
            answer: pb.DeleteDocumentResponse = await rpc.call(self._ingestor.DeleteDocument, request, timeout=timeout)
            if not answer.changed:
                raise NotFoundError("no such document")
        except ServiceError as error:
            await self._record(exchange, caller, details, started, code=error.code)
            raise _shown(error) from error
        await self._record(exchange, caller, details, started)
        shown = {"id": document_id, "object": "knowledge.document", "collection": collection, "version": request.version}
        await exchange.respond_json({**shown, "withdrawn": True})

    async def _record(self, exchange: Exchange, caller: Caller, details: dict[str, Any], started: float, *, code: str = "") -> None:
        """Put on record who did what; what was stored stays stored where this fails, and a repeat changes nothing."""
        who = {"key_id": caller.key_id, "role": caller.role, "user": caller.user}
        await self._parts.trail.record(
            "knowledge",
            "rejected" if code else "succeeded",
            record_id=f"{exchange.request_id}/knowledge",
            tenant=caller.tenant,
            request_id=exchange.request_id,
            trace_id=trace_id(_NO_TRACE),
            details={**details, **who},
            code=code,
            started=started,
        )


def _shown(error: ServiceError) -> ServiceError:
    """Return the error with what it says of the caller's document, and nothing of anybody else's."""
    if isinstance(error, RefusedError) or error.code not in _SHOWN:
        return error
    return RefusedError(error.code, str(error)[:500])


def _too_large(limit: int) -> RefusedError:
    return RefusedError("document_too_large", f"At most {limit} bytes are allowed.")
