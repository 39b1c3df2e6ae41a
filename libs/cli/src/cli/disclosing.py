"""`strata audit receipt|bundle|search|rebuild-view|erase|hold`: what a running log gives away and destroys, each on record there."""

import asyncio
import getpass
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from chassis import rpc
from chassis.errors import NotFoundError
from chassis.messaging import to_json
from cli import bundling, outside
from cli.auditing import audit_app
from cli.connection import settings
from cli.leaving import require_writable
from cli.options import DEFAULT_STATE, AsJson, State, print_json
from cli.place import at
from strata.audit.v1 import audit_service_pb2 as pb
from strata.audit.v1.audit_service_pb2_grpc import AuditServiceStub
from strata.gateway.v1.gateway_events_pb2 import Caller

out, err = Console(soft_wrap=True), Console(stderr=True, soft_wrap=True)
holds = typer.Typer(no_args_is_help=True, help="Keep records from erasure and expiry.")
Tenant = Annotated[str, typer.Option(help="Tenant.")]
Reason = Annotated[str, typer.Option(help="Why, for the record.")]
Out = Annotated[Path, typer.Option("--out", help="File to write.")]
Request = Annotated[str, typer.Argument(metavar="REQUEST", help="Request id.")]
# Records of erasures are named so.
_ERASURE = "erasure/"
_TIMEOUT_SECONDS = 30
_REBUILD_SECONDS = 600


def operator() -> Caller:
    """Return who works at this machine: the log keeps the name of the account."""
    return Caller(tenant="operator", role="operator", user=getpass.getuser(), permissions=["audit:all"])


def _run(work: Awaitable[Any]) -> Any:
    async def waited() -> Any:
        return await work

    return asyncio.run(waited())


def _call(state: Path, method: Callable[[Any], Any], request: Any, *, seconds: float = _TIMEOUT_SECONDS) -> Any:
    found = settings(at(state))

    async def work() -> Any:
        async with rpc.channel(found, "cli", "audit") as channel:
            return await rpc.call(method(AuditServiceStub(channel)), request, timeout=seconds)

    return _run(work())


def _tell(content: dict[str, Any], text: str, *, as_json: bool) -> None:
    if as_json:
        print_json(content)
    else:
        out.print(text, highlight=False, markup=False)


@audit_app.command()
def receipt(
    request: Request,
    out_file: Out,
    state: State = DEFAULT_STATE,
    *,
    cose: Annotated[bool, typer.Option("--cose", help="Write COSE_Sign1 instead of JSON.")] = False,
) -> None:
    """Write the receipt of an answer, which `verify-receipt` checks offline."""
    require_writable(out_file)
    found = _call(state, lambda stub: stub.GetReceipt, pb.GetReceiptRequest(caller=operator(), request_id=request))
    out_file.touch(mode=0o600)
    out_file.write_bytes(found.cose if cose else found.receipt_json + b"\n")
    err.print(f"{out_file}: receipt of {request}", highlight=False)


@audit_app.command()
def bundle(request: Request, out_file: Out, state: State = DEFAULT_STATE, *, as_json: AsJson = False) -> None:
    """Write all that an outsider needs to check what happened to a request; `verify-bundle` checks it offline."""
    require_writable(out_file)
    manifest = _run(bundling.bundle(settings(at(state)), operator(), request, out_file))
    _tell(manifest, f"{out_file}: {len(manifest['files'])} files about {request}", as_json=as_json)


@audit_app.command()
def search(
    state: State = DEFAULT_STATE,
    identifier: Annotated[str, typer.Option("--id", help="Request or trace id.")] = "",
    tenant: Tenant = "",
    since: Annotated[str, typer.Option("--from", help="Stored at or after, ISO 8601.")] = "",
    until: Annotated[str, typer.Option("--to", help="Stored before, ISO 8601.")] = "",
    user: Annotated[str, typer.Option(help="User whom the record is about; needs --tenant.")] = "",
    document: Annotated[str, typer.Option(help="Document, or document@version, that was retrieved or cited.")] = "",
    adapter: Annotated[str, typer.Option(help="Adapter that made the text.")] = "",
    verdict: Annotated[str, typer.Option(help="Decision or code of a verdict.")] = "",
    policy: Annotated[str, typer.Option(help="Policy or rule.")] = "",
    step: Annotated[str, typer.Option(help="Step.")] = "",
    limit: Annotated[int, typer.Option(help="Most records.", min=1, max=500)] = 50,
    cursor: Annotated[str, typer.Option(help="Where the page before ended.")] = "",
    *,
    as_json: AsJson = False,
) -> None:
    """Find records, newest first; all that is given must hold, for the record or together for its request."""
    asked = pb.SearchRecordsRequest(
        caller=operator(), id=identifier, tenant=tenant, since=since, until=until, user=user, document=document,
        adapter=adapter, verdict=verdict, policy=policy, step=step, limit=limit, cursor=cursor,
    )  # fmt: skip
    found = to_json(_call(state, lambda stub: stub.SearchRecords, asked))
    records = [{"index": int(one.get("index", 0)), "hash": one["hash"], **one["record"]} for one in found.get("records", [])]
    lines = [
        f"#{one['index']:<8} {one.get('tenant', ''):<12} {one.get('service', ''):<13} {one.get('step', ''):<16} "
        f"{one.get('outcome', ''):<10} {one.get('request_id', '')}"
        for one in records
    ]
    content = {"records": records, "next_cursor": found.get("next_cursor", "")}
    more = [f"more with --cursor {content['next_cursor']}"] if content["next_cursor"] else []
    _tell(content, "\n".join([*lines, *more]) or "nothing found", as_json=as_json)


@audit_app.command("rebuild-view")
def rebuild_view(state: State = DEFAULT_STATE, *, as_json: AsJson = False) -> None:
    """Make the lookups anew from the log."""
    request = pb.RebuildViewRequest(caller=operator())
    found = _call(state, lambda stub: stub.RebuildView, request, seconds=_REBUILD_SECONDS)
    _tell({"records": found.records}, f"{found.records} records", as_json=as_json)


@audit_app.command()
def erase(
    tenant: Tenant,
    subject: Annotated[str, typer.Option(help="User whose records become unreadable for good.")],
    reason: Reason,
    state: State = DEFAULT_STATE,
    *,
    as_json: AsJson = False,
) -> None:
    """Destroy the keys of all that the log holds about a user, and have others forget what they hold; refused while a hold is on."""
    request = pb.EraseSubjectRequest(caller=operator(), tenant=tenant, subject=subject, reason=reason)
    found = _call(state, lambda stub: stub.EraseSubject, request)
    name, holders = found.erasure_id.removeprefix(_ERASURE), _holders(found.holders)
    content = {"erasure": name, "keys": found.keys, "requests": found.requests, "holders": holders}
    text = f"{found.keys} keys of {found.requests} requests destroyed"
    _tell(content, "\n".join([text, *_lines(holders), *_later(name, holders)]), as_json=as_json)


@audit_app.command()
def erasure(
    name: Annotated[str, typer.Argument(metavar="ERASURE", help="Name that `erase` gave.")],
    state: State = DEFAULT_STATE,
    *,
    as_json: AsJson = False,
) -> None:
    """Tell which services have forgotten what they held of an erased user, and which have not yet."""
    found = _call(state, lambda stub: stub.GetErasure, pb.GetErasureRequest(caller=operator(), erasure_id=f"{_ERASURE}{name}"))
    holders = _holders(found.holders)
    content = {"erasure": name, "tenant": found.tenant, "holders": holders}
    _tell(content, "\n".join(_lines(holders)) or "nobody held anything", as_json=as_json)


def _holders(states: Iterable[pb.HolderState]) -> dict[str, str]:
    return {one.holder: "erased" if one.done == one.ordered else "pending" for one in states}


def _lines(holders: dict[str, str]) -> list[str]:
    return [f"{holder:<14} {state}" for holder, state in holders.items()]


def _later(name: str, holders: dict[str, str]) -> list[str]:
    return [f"later: strata audit erasure {name}"] if "pending" in holders.values() else []


@holds.command("add")
def add_hold(
    tenant: Tenant,
    reason: Reason,
    subject: Annotated[str, typer.Option(help="User; empty holds the whole tenant.")] = "",
    state: State = DEFAULT_STATE,
) -> None:
    """Keep the records of a user or a tenant."""
    _call(state, lambda stub: stub.SetHold, pb.SetHoldRequest(caller=operator(), tenant=tenant, subject=subject, reason=reason))
    err.print(f"held: {subject or 'everybody'} of {tenant}", highlight=False)


@holds.command("lift")
def lift_hold(
    tenant: Tenant,
    reason: Reason,
    subject: Annotated[str, typer.Option(help="User; empty for the hold of the whole tenant.")] = "",
    state: State = DEFAULT_STATE,
) -> None:
    """End a hold."""
    request = pb.LiftHoldRequest(caller=operator(), tenant=tenant, subject=subject, reason=reason)
    if not _call(state, lambda stub: stub.LiftHold, request).lifted:
        raise NotFoundError("there is no such hold")
    err.print(f"lifted: {subject or 'everybody'} of {tenant}", highlight=False)


@holds.command("list")
def list_holds(tenant: Tenant = "", state: State = DEFAULT_STATE, *, as_json: AsJson = False) -> None:
    """Print the holds; users are named by the token under which lookups find them."""
    found = _call(state, lambda stub: stub.ListHolds, pb.ListHoldsRequest(caller=operator(), tenant=tenant))
    rows = [to_json(hold) for hold in found.holds]
    lines = [f"{row['tenant']:<12} {row.get('subject_token', 'everybody')[:16]:<16} {row['set_by']:<20} {row['reason']}" for row in rows]
    _tell({"holds": rows}, "\n".join(lines) or "nothing is held", as_json=as_json)


app = audit_app
app.add_typer(holds, name="hold")
app.registered_commands += outside.app.registered_commands
