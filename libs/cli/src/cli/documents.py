"""`strata knowledge put`, `withdraw` and `due`: documents in, versions out of force, and what somebody must look at again."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from chassis import rpc
from chassis.messaging import to_json
from cli.connection import settings
from cli.options import DEFAULT_STATE, AsJson, State, print_json
from cli.place import at
from strata.ingestor.v1 import knowledge_service_pb2 as pb
from strata.ingestor.v1.knowledge_service_pb2_grpc import KnowledgeServiceStub

out = Console()
_PIECE_BYTES = 64 * 1024
_SECONDS = 180.0


def _run(state: Path, ask: Callable[[KnowledgeServiceStub], Awaitable[Any]]) -> Any:
    """Ask ingestor of a running stack; raise ServiceError when it refuses or does not answer."""
    found = settings(at(state))

    async def run() -> Any:
        async with rpc.channel(found, "cli", "ingestor") as channel:
            return await ask(KnowledgeServiceStub(channel))

    return asyncio.run(run())


def put(
    collection: Annotated[str, typer.Argument(help="Collection it goes into.")],
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Markdown, HTML, PDF, Word or plain text.")],
    state: State = DEFAULT_STATE,
    *,
    document_id: Annotated[str, typer.Option("--id", help="Identifier; empty takes the name of the file.")] = "",
    title: Annotated[str, typer.Option(help="Title; empty takes the one in the file.")] = "",
    version: Annotated[str, typer.Option(help="Version; empty takes the date.")] = "",
    effective_from: Annotated[str, typer.Option(help="Date from which it holds; an anchored document needs one.")] = "",
    expires_at: Annotated[str, typer.Option(help="Date from which it is hidden.")] = "",
    labels: Annotated[list[str] | None, typer.Option("--label", help="Access label that a reader needs; may be repeated.")] = None,
    metadata: Annotated[list[str] | None, typer.Option("--metadata", help="name=value to filter by; may be repeated.")] = None,
    source: Annotated[str, typer.Option(help="Where it came from; empty takes the name of the file.")] = "",
    licence: Annotated[str, typer.Option(help="Licence of the text; empty takes the collection's.")] = "",
    tenant: Annotated[str, typer.Option(help="Tenant it belongs to; empty for all.")] = "",
    as_json: AsJson = False,
) -> None:
    """Store one version of a document; it is searchable when this returns."""
    document = pb.Document(id=document_id, title=title, version=version, labels=labels or [], source=source, licence=licence, tenant=tenant)
    for name, value in (("effective_from", effective_from), ("expires_at", expires_at)):
        if value:
            getattr(document, name).FromDatetime(_moment(name, value))
    for pair in metadata or []:
        name, found, value = pair.partition("=")
        if not found:
            raise typer.BadParameter(f"--metadata {pair!r} must be name=value")
        document.metadata[name] = value
    size = file.stat().st_size
    header = pb.UploadHeader(collection=collection, file_name=file.name, document=document, size_bytes=size)
    answer = _run(state, lambda stub: rpc.send(stub.UploadDocument, _pieces(header, file), timeout=_SECONDS))
    if as_json:
        print_json(to_json(answer))
        return
    what = "stored" if answer.changed else "unchanged"
    supersedes = f", supersedes {answer.supersedes}" if answer.supersedes else ""
    out.print(
        f"{what}: {collection}/{answer.document_id} {answer.version} {answer.format}, {answer.chunks} chunks{supersedes}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


async def _pieces(header: pb.UploadHeader, file: Path) -> AsyncIterator[pb.UploadDocumentRequest]:
    yield pb.UploadDocumentRequest(header=header)
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while piece := await asyncio.to_thread(content.read, _PIECE_BYTES):
            digest.update(piece)
            yield pb.UploadDocumentRequest(content=piece)
    yield pb.UploadDocumentRequest(sha256=digest.hexdigest())


def _moment(name: str, value: str) -> datetime:
    try:
        moment = datetime.fromisoformat(value)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        # Near the first or the last year a zone leads out of the calendar.
        raise typer.BadParameter(f"--{name.replace('_', '-')} must be a date, got {value!r}") from error


def withdraw(
    collection: Annotated[str, typer.Argument(help="Collection it is in.")],
    document_id: Annotated[str, typer.Argument(metavar="ID", help="Identifier of the document.")],
    state: State = DEFAULT_STATE,
    *,
    version: Annotated[str, typer.Option(help="Version to withdraw; none for a fluid document.")] = "",
    reason: Annotated[str, typer.Option(help="Why, for the record; a withdrawal needs one.")] = "",
    tenant: Annotated[str, typer.Option(help="Tenant that it belongs to; empty for documents of all.")] = "",
    as_json: AsJson = False,
) -> None:
    """Take a version out of force, so that the one before it holds again, or delete a fluid document."""
    request = pb.DeleteDocumentRequest(collection=collection, document_id=document_id, version=version, reason=reason, tenant=tenant)
    answer = _run(state, lambda stub: rpc.call(stub.DeleteDocument, request, timeout=_SECONDS))
    if as_json:
        print_json({"collection": collection, "document_id": document_id, "version": version, "changed": answer.changed})
    else:
        out.print(f"{'withdrawn' if answer.changed else 'not there'}: {collection}/{document_id} {version}", highlight=False, markup=False)
    if not answer.changed:
        raise typer.Exit(1)


def due(
    state: State = DEFAULT_STATE,
    *,
    on: Annotated[str, typer.Option(help="Day as YYYY-MM-DD; empty for today.")] = "",
    as_json: AsJson = False,
) -> None:
    """List collections and documents whose review is due; exit code 4 when there are any."""
    answer = _run(state, lambda stub: rpc.call(stub.ListDueReviews, pb.ListDueReviewsRequest(on=on), timeout=_SECONDS))
    if as_json:
        print_json({"due": [to_json(entry) for entry in answer.due]})
    elif not answer.due:
        out.print("nothing is due")
    else:
        table = Table("collection", "document", "tenant", "version", "owner", "review date", "days over")
        for entry in answer.due:
            names = [entry.collection, entry.document_id or "(all)", entry.tenant or "-", entry.version or "-"]
            table.add_row(*map(escape, names), escape(entry.owner), entry.review_date, str(entry.days_over))
        out.print(table)
    if answer.due:
        raise typer.Exit(4)
