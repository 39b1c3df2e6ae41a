"""`strata knowledge`: how fresh it is, whether the index is what the sources say, and what was deleted."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf import json_format
from google.protobuf.message import Message
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from chassis import rpc
from cli import documents, knowledge_init
from cli.connection import settings
from cli.options import DEFAULT_STATE, AsJson, State
from cli.place import at
from strata.ingestor.v1 import knowledge_service_pb2 as pb
from strata.ingestor.v1.knowledge_service_pb2_grpc import KnowledgeServiceStub

app = typer.Typer(no_args_is_help=True, help="The knowledge: its documents, its freshness, its index.")
out = Console()
_HOUR = 3600.0


def call(state: Path, method: Callable[[Any], Any], request: Message, *, seconds: float = 30) -> Any:
    """Call ingestor of a running stack; raise ServiceError when it refuses or does not answer."""
    found = settings(at(state))

    async def ask() -> Any:
        async with rpc.channel(found, "cli", "ingestor") as channel:
            return await rpc.call(method(KnowledgeServiceStub(channel)), request, timeout=seconds)

    return asyncio.run(ask())


@app.command()
def status(state: State = DEFAULT_STATE, *, as_json: AsJson = False) -> None:
    """Show each source and collection: how fresh, how complete, what is wrong; exit code 4 when a promise is broken."""
    found = call(state, lambda stub: stub.GetStatus, pb.GetStatusRequest())
    if as_json:
        out.print_json(data=_whole(found))
    else:
        _show(found)
    if any(source.problem or not source.sla_holds for source in found.sources):
        raise typer.Exit(4)


def _show(found: pb.GetStatusResponse) -> None:
    out.print(f"backend {found.backend}, encoder {found.encoder}, index versions {dict(found.index_versions)}")
    if found.sources:
        table = Table("source", "state", "last change", "lag p50/p95/p99", "promise", "missing", "surplus", "stale", "waiting", "problem")
        for s in found.sources:
            lag = f"{s.lag_p50_seconds:.2f}/{s.lag_p95_seconds:.2f}/{s.lag_p99_seconds:.2f} s"
            promise = f"{s.sla_seconds:g} s {'holds' if s.sla_holds else 'BROKEN'}" if s.sla_seconds else "-"
            numbers = [str(n) for n in (s.missing, s.surplus, s.stale, s.without_vector)]
            table.add_row(s.name, s.state, _age(s), lag, promise, *numbers, escape(s.problem))
        out.print(table)
    table = Table("collection", "documents", "chunks", "superseded", "expired", "withdrawn", "review")
    for c in found.collections:
        numbers = [str(n) for n in (c.documents, c.chunks, c.superseded, c.expired, c.withdrawn)]
        table.add_row(c.name, *numbers, "[red]due[/red]" if c.review_due else "")
    out.print(table)


def _age(source: pb.SourceStatus) -> str:
    if not source.HasField("last_change_at"):
        return "never"
    seconds = (datetime.now(UTC) - source.last_change_at.ToDatetime(tzinfo=UTC)).total_seconds()
    return f"{seconds:.0f} s ago"


@app.command()
def reconcile(
    source: Annotated[str, typer.Argument(help="Source; empty for all.")] = "", state: State = DEFAULT_STATE, *, as_json: AsJson = False
) -> None:
    """Compare source, ledger and index now and mend what differs."""
    found = call(state, lambda stub: stub.Reconcile, pb.ReconcileRequest(source=source), seconds=_HOUR)
    _print(found, as_json=as_json)


@app.command("prove-deletion")
def prove_deletion(
    collection: Annotated[str, typer.Argument(help="Collection it was in.")],
    document_id: Annotated[str, typer.Argument(metavar="ID", help="Identifier of the document.")],
    state: State = DEFAULT_STATE,
    *,
    tenant: Annotated[str, typer.Option(help="Tenant it belonged to.")] = "",
    as_json: AsJson = False,
) -> None:
    """Look for a document in every index, older table version and ledger; exit code 4 when it is still somewhere."""
    request = pb.ProveDeletionRequest(collection=collection, document_id=document_id, tenant=tenant)
    found = call(state, lambda stub: stub.ProveDeletion, request)
    if as_json:
        out.print_json(data=_whole(found))
    else:
        _show_places(found)
    if not found.absent:
        raise typer.Exit(4)


def _show_places(found: pb.ProveDeletionResponse) -> None:
    table = Table("place", "document", "since", "until")
    for place in found.places:
        moments = [_moment(place, name) for name in ("since", "until")]
        table.add_row(escape(place.place), "absent" if place.absent else "[red]THERE[/red]", *moments)
    out.print(table)
    out.print(f"{'absent' if found.absent else 'NOT absent'}; deleted at {_moment(found, 'deleted_at')}")


def _moment(message: Any, name: str) -> str:
    return getattr(message, name).ToJsonString() if message.HasField(name) else "-"


@app.command()
def reembed(
    directory: Annotated[str, typer.Argument(help="Folder of the weights; empty for the installed encoder.")] = "",
    state: State = DEFAULT_STATE,
    *,
    rollback: Annotated[bool, typer.Option("--rollback", help="Go back to the encoder before the last switch.")] = False,
    as_json: AsJson = False,
) -> None:
    """Build the index of another encoder beside the one in use, hold it against that one, and switch."""
    request = pb.ReembedRequest(directory=directory, rollback=rollback)
    _print(call(state, lambda stub: stub.Reembed, request, seconds=_HOUR), as_json=as_json)


@app.command()
def prune(state: State = DEFAULT_STATE, *, as_json: AsJson = False) -> None:
    """Give up the way back to the encoder before, and drop every table but those that are searched, so that a deletion is complete."""
    _print(call(state, lambda stub: stub.Prune, pb.PruneRequest(), seconds=_HOUR), as_json=as_json)


def _print(message: Message, *, as_json: bool) -> None:
    if as_json:
        out.print_json(data=_whole(message))
        return
    for name, value in _whole(message).items():
        out.print(f"{name}: {value}", highlight=False, markup=False)


def _whole(message: Message) -> dict[str, Any]:
    """Return a message as plain JSON types with what is 0 or false, which a script asks for like all else."""
    found: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    return found


app.command("init")(knowledge_init.init)
app.command("put")(documents.put)
app.command("withdraw")(documents.withdraw)
app.command("due")(documents.due)
