"""`strata trace` and `strata audit`: what happened to a request, and proof that nobody altered the record."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from chassis import rpc
from chassis.errors import FailedPreconditionError, InternalError, InvalidArgumentError, NotFoundError
from chassis.messaging import to_json
from cli.connection import settings
from cli.leaving import NOT_THERE, InputError, leave
from cli.options import DEFAULT_STATE, AsJson, State, print_json
from cli.place import Place, at
from strata.audit.v1.audit_service_pb2 import GetTraceRequest
from strata.audit.v1.audit_service_pb2_grpc import AuditServiceStub
from strata.gateway.v1.gateway_events_pb2 import Caller

trace_app = typer.Typer(no_args_is_help=True, help="What happened to a request.")
audit_app = typer.Typer(no_args_is_help=True, help="The log that nobody can alter.")
out = Console()
_COLOURS = {"succeeded": "green", "failed": "red", "rejected": "red", "skipped": "dim"}


@trace_app.callback()
def _trace() -> None:
    """Keep `show` a sub-command while it is the only one."""


async def fetch(place: Place, identifier: str) -> list[dict[str, Any]]:
    """Return the chained records of a request or trace as plain JSON types, oldest first."""
    found = settings(place)
    caller = Caller(tenant="operator", role="operator", permissions=["audit:all"])
    async with rpc.channel(found, "cli", "audit") as channel:
        stub = AuditServiceStub(channel)
        response = await rpc.call(stub.GetTrace, GetTraceRequest(id=identifier, caller=caller), timeout=10)
    return [to_json(record) for record in response.records]


@trace_app.command()
def show(
    identifier: Annotated[str, typer.Argument(metavar="ID", help="Request id or trace id.")],
    state: State = DEFAULT_STATE,
    *,
    as_json: AsJson = False,
) -> None:
    """Print the full story of a request."""
    records = asyncio.run(fetch(at(state), identifier))
    if as_json:
        print_json(records)
        return
    print_story(records)


def print_story(records: list[dict[str, Any]]) -> None:
    """Print the records for a person: one line a step, what it decided under it, and its place in the log."""
    first = records[0]["record"]
    head = f"request [bold]{first.get('request_id')}[/bold]  trace {first.get('trace_id')}  tenant {first.get('tenant')}"
    out.print(head, highlight=False)
    for chained in records:
        record = chained["record"]
        colour = _COLOURS.get(record.get("outcome", ""), "yellow")
        name = record.get("step_id") or record.get("step")
        title = f"{record.get('step')}" + (f" ({name})" if name != record.get("step") else "")
        code = f" {record['code']}" if record.get("code") else ""
        when = f"[dim]{record.get('started_at', '')[11:23]}[/dim] {record.get('service', ''):<13}[bold]{title:<24}[/bold]"
        what = f"[{colour}]{record.get('outcome')}[/{colour}]{code} {record.get('duration_ms', 0):.1f} ms"
        place = f"[dim]#{chained.get('index', 0)} {chained['hash'][:12]}[/dim]"
        out.print(f"{when}{what}  {place}", highlight=False, soft_wrap=True)
        for key, value in (record.get("details") or {}).items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            out.print(f"      [dim]{escape(key)}:[/dim] {escape(text[:300])}", highlight=False, soft_wrap=True)


Log = Annotated[Path | None, typer.Option(help="Folder of the log; empty takes the one of the stack.")]


def _installed(group: str) -> Any:
    """Return what the audit service offers to whoever has its package installed; nothing of it needs to run."""
    (entry,) = entry_points(group=group, name="audit")
    return entry.load()


@audit_app.command()
def verify(
    state: State = DEFAULT_STATE,
    log: Log = None,
    checkpoint: Annotated[list[Path] | None, typer.Option(help="File with a checkpoint that was kept elsewhere; may be repeated.")] = None,
    key: Annotated[list[str] | None, typer.Option(help="Public key of the log; empty takes those of the stack. May be repeated.")] = None,
    witness_key: Annotated[list[str] | None, typer.Option(help="Public key of a witness, beside --key; may be repeated.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Recompute the whole log from the files and the public keys, and name the first record that is not what was written.

    Ends with 0 when it is intact, 1 when it was altered, 2 for an input that is wrong, 3 when there is no log or no key to check.
    """
    folder = log or at(state).state_dir / "audit"
    # Witnesses of the same machine keep their own word; without a stack there are none.
    files = [*(checkpoint or []), *(sorted(folder.parent.glob("witness-*/*.checkpoint")) if not key else [])]
    kept = [path.read_bytes().decode(errors="replace") for path in files]
    try:
        result = _installed("strata.verifiers")(folder, kept=kept, keys=key or (), witness_keys=witness_key or ())
    except InvalidArgumentError as error:
        raise InputError(str(error)) from error
    except (NotFoundError, FailedPreconditionError) as error:
        raise leave("nothing_to_check", str(error), NOT_THERE) from error
    if as_json:
        print_json(asdict(result))
    elif result.intact:
        witnessed = f", {result.cosigned} of them cosigned by {', '.join(result.witnesses)}" if result.cosigned else ""
        out.print(f"[green]intact[/green]: {result.size} records, head {result.head}{witnessed}", highlight=False, soft_wrap=True)
        for gap in result.gaps:
            out.print(f"[yellow]gap[/yellow]: {gap}: published by nobody, or lost before the log", highlight=False, soft_wrap=True)
        if result.unsigned:
            who = "a writer at work signs them within moments; a start signs what it sealed itself and cuts anything else"
            line = f"[yellow]unsigned[/yellow]: {result.unsigned} lines from record {result.size} on have no checkpoint: {who}"
            out.print(line, highlight=False, soft_wrap=True)
    else:
        out.print(f"[red]altered[/red]: record {result.first_bad_index}: {result.problem}", highlight=False, soft_wrap=True)
    if not result.intact:
        raise typer.Exit(1)


def _print_proof(folder: Path, make: Callable[[Any], dict[str, Any]], *, as_json: bool, summary: str) -> None:
    try:
        found = make(_installed("strata.provers")(folder))
    except ValueError as error:
        raise InternalError(f"the log is not as it was written: {error}") from error
    if as_json:
        print_json(found)
    else:
        out.print(summary.format(**found), highlight=False, soft_wrap=True, markup=False)


@audit_app.command()
def prove(
    record: Annotated[str, typer.Argument(metavar="RECORD", help="Identifier of the record, or its index.")],
    state: State = DEFAULT_STATE,
    log: Log = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Prove to an outsider that a record is in the log."""
    folder = log or at(state).state_dir / "audit"
    text = "record {index} of {size} is in the log\n\n{checkpoint}"
    _print_proof(folder, lambda prover: prover.prove(record), as_json=as_json, summary=text)


@audit_app.command()
def consistency(
    old: Annotated[int, typer.Argument(metavar="OLD_SIZE", help="Records that the log had.")],
    new: Annotated[int, typer.Argument(metavar="NEW_SIZE", help="Records that it has later.")],
    state: State = DEFAULT_STATE,
    log: Log = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Prove to an outsider that the log only grew between two sizes."""
    folder = log or at(state).state_dir / "audit"
    text = "the log only grew\n\n{old_checkpoint}\n{new_checkpoint}"
    _print_proof(folder, lambda prover: prover.consistency(old, new), as_json=as_json, summary=text)


@audit_app.command()
def checkpoint(state: State = DEFAULT_STATE, log: Log = None, *, as_json: AsJson = False) -> None:
    """Print the newest checkpoint that witnesses have cosigned, and the keys to check it with."""
    folder = log or at(state).state_dir / "audit"
    _print_proof(folder, lambda prover: prover.checkpoint(), as_json=as_json, summary="{checkpoint}")
