"""`strata review`: what waits for people, and what they decide; examples to learn from."""

import asyncio
import getpass
import hashlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from chassis import rpc
from chassis.messaging import to_json
from chassis.provisioning import write_private
from cli.connection import ask_gateway, settings
from cli.leaving import require_writable
from cli.options import DEFAULT_STATE, AsJson, State, print_json
from cli.place import Place, at
from strata.gateway.v1.gateway_events_pb2 import Caller
from strata.review.v1.review_service_pb2 import ExportExamplesRequest
from strata.review.v1.review_service_pb2_grpc import ReviewServiceStub

app = typer.Typer(no_args_is_help=True, help="What waits for people, and what they decide.")
out = Console()
Key = Annotated[str, typer.Option(envvar="STRATA_API_KEY", help="API key of the reviewer, as `strata keys create` printed it.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="Request that waits.")]
_KEPT = (
    *("request_id", "trace_id", "tenant", "domain", "workflow", "consent", "decision", "labels", "reviewers", "agreement"),
    *("reason", "rule_id", "rule_version", "adapter", "decided_at"),
)
_COLUMNS = ("id", "severity", "reason", "status", "deadline", "reviewers", "decision")


def _ask(state: Path, key: str, method: str, path: str, **options: Any) -> dict[str, Any]:
    return ask_gateway(at(state), key, method, f"reviews{path}", **options)


@app.command("list")
def list_reviews(
    key: Key,
    state: State = DEFAULT_STATE,
    *,
    status: Annotated[str, typer.Option(help="open or decided; empty for both.")] = "open",
    severity: Annotated[str, typer.Option(help="low, medium, high or critical.")] = "",
    reason: Annotated[str, typer.Option(help="Reason of the escalation.")] = "",
    claimable: Annotated[bool, typer.Option("--claimable", help="Only what this key could claim.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=200, help="Most reviews to show.")] = 50,
    cursor: Annotated[str, typer.Option(help="Where the page before ended.")] = "",
    as_json: AsJson = False,
) -> None:
    """List reviews, oldest first."""
    wanted = {"status": status, "severity": severity, "reason": reason, "cursor": cursor, "claimable": "1" if claimable else ""}
    found = _ask(state, key, "GET", "", params={"limit": limit, **{name: value for name, value in wanted.items() if value}})
    if as_json:
        print_json(found)
        return
    table = Table()
    for name in _COLUMNS:
        # Whoever decides copies the id.
        table.add_column(name, no_wrap=name == "id", min_width=28 if name == "id" else None, overflow="fold")
    for row in found["data"]:
        table.add_row(*(escape(str(row.get(name, "-"))) for name in _COLUMNS))
    out.print(table)
    summary = found["summary"]
    alpha = summary["agreement"]["alpha"]
    agreement = f"alpha {alpha:.2f} over {summary['agreement']['reviews']}" if alpha is not None else "agreement not yet known"
    out.print(f"{summary['open']} open, {summary['overdue']} overdue, {summary['decided']} decided; {agreement}", highlight=False)
    if found["next_cursor"]:
        out.print(f"more: --cursor {found['next_cursor']}", highlight=False)


@app.command()
def show(review_id: Id, key: Key, state: State = DEFAULT_STATE, *, as_json: AsJson = False) -> None:
    """Show one review with its conversation, its draft and the trace of its request."""
    found = _ask(state, key, "GET", f"/{quote(review_id, safe='')}")
    if as_json:
        print_json(found)
        return
    _print(found)
    for message in found.get("messages", ()):
        out.print(f"[bold]{escape(message.get('role', ''))}[/bold]: {escape(message.get('content', ''))}", highlight=False)
    if draft := found.get("draft"):
        out.print(f"[bold]draft[/bold] ({escape(draft.get('origin', ''))}): {escape(draft.get('text', ''))}", highlight=False)
    for chained in found.get("trace", ()):
        record = chained["record"]
        name = record.get("step_id") or record.get("step")
        out.print(f"  [dim]{record.get('service')}[/dim] {escape(str(name))} {record.get('outcome')}", highlight=False)


@app.command()
def claim(
    review_id: Id,
    key: Key,
    state: State = DEFAULT_STATE,
    *,
    give_back: Annotated[bool, typer.Option("--release", help="Give it back instead.")] = False,
    as_json: AsJson = False,
) -> None:
    """Have a review to decide for a while, or give it back."""
    _result(_ask(state, key, "POST", f"/{quote(review_id, safe='')}/{'release' if give_back else 'claim'}"), as_json=as_json)


@app.command()
def decide(
    review_id: Id,
    decision: Annotated[str, typer.Argument(help="approve, correct, reject or label.")],
    key: Key,
    state: State = DEFAULT_STATE,
    *,
    text: Annotated[str, typer.Option(help="Answer, to correct; `-` reads it from standard input.")] = "",
    label: Annotated[list[str] | None, typer.Option(help="Label; may be given several times.")] = None,
    comment: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    as_json: AsJson = False,
) -> None:
    """Decide a review that this key has claimed."""
    body = {"decision": decision, "text": sys.stdin.read() if text == "-" else text, "labels": label or [], "comment": comment}
    _result(_ask(state, key, "POST", f"/{quote(review_id, safe='')}/decision", json=body), as_json=as_json)


def _result(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        _print(found)


def _print(found: dict[str, Any]) -> None:
    for name in (*_COLUMNS, "rule_id", "rule_version", "owner", "agreement", "consent"):
        if name in found:
            out.print(f"{name}: {escape(str(found[name]))}", highlight=False)
    for lease in found.get("leases", ()):
        out.print(f"with {escape(lease.get('reviewer', ''))} until {lease.get('expires_at')}", highlight=False)


@app.command()
def export(
    to: Annotated[Path, typer.Option("--out", help="File for supervised training; the others are named after it.")],
    state: State = DEFAULT_STATE,
    *,
    tenant: Annotated[str, typer.Option(help="Tenant; empty for all.")] = "",
    consent: Annotated[list[str] | None, typer.Option(help="Consent class to include: training (default), internal.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write reviewed answers as JSONL in TRL's columns: supervised, preferences, and where each comes from."""
    require_writable(to)
    written = write(to, asyncio.run(_fetch(at(state), tenant, consent or ["training"])))
    if as_json:
        print_json(written)
        return
    for name, count in written["lines"].items():
        out.print(f"{count:>6}  {name}", highlight=False)


async def _fetch(place: Place, tenant: str, consents: list[str]) -> list[dict[str, Any]]:
    found = settings(place)
    caller = Caller(tenant=tenant or "system", role="operator", user=getpass.getuser(), key_id="cli", permissions=["review:export"])
    request = ExportExamplesRequest(caller=caller, tenant=tenant, consents=consents)
    async with rpc.channel(found, "cli", "review") as channel:
        stub = ReviewServiceStub(channel)
        return [to_json(response.example) async for response in rpc.stream(stub.ExportExamples, request, timeout=600)]


def write(to: Path, examples: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Write `to` (SFT: `messages`), `.preference.jsonl` (`prompt`, `chosen`, `rejected`) and `.provenance.jsonl`; return the counts.

    A line of provenance names file and line of what it is about, so that consent which ends can be followed to every example.
    """
    supervised, preferences, origins = list[dict[str, Any]](), list[dict[str, Any]](), list[dict[str, Any]]()
    preference_file = to.with_name(f"{to.stem}.preference.jsonl")
    for example in examples:
        prompt = [_turn(message) for message in example.get("messages", ())]
        chosen, rejected = example.get("chosen", ""), example.get("rejected", "")
        if chosen:
            supervised.append({"messages": [*prompt, {"role": "assistant", "content": chosen}]})
            origins.append(_origin(example, to.name, len(supervised)))
        if chosen and rejected and chosen != rejected:
            answers = {name: [{"role": "assistant", "content": text}] for name, text in (("chosen", chosen), ("rejected", rejected))}
            preferences.append({"prompt": prompt, **answers})
            origins.append(_origin(example, preference_file.name, len(preferences)))
    files = {to: supervised, preference_file: preferences, to.with_name(f"{to.stem}.provenance.jsonl"): origins}
    digests = {}
    for path, rows in files.items():
        content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        write_private(path, content)
        digests[path.name] = hashlib.sha256(content).hexdigest()
    return {"lines": {path.name: len(rows) for path, rows in files.items()}, "sha256": digests}


def _turn(message: dict[str, Any]) -> dict[str, str]:
    return {"role": message.get("role", "user"), "content": message.get("content", "")}


def _origin(example: dict[str, Any], file: str, line: int) -> dict[str, Any]:
    return {"file": file, "line": line, **{name: example[name] for name in _KEPT if name in example}}
