"""`strata demo`: the sample requests of every domain, sent to a running stack and checked against what must come of them."""

import asyncio
import json
import time
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.rule import Rule

from cli.asking import complete, show_origin, stream
from cli.auditing import fetch, print_story
from cli.connection import GatewayError
from cli.keys import create_key
from cli.leaving import InputError
from cli.options import DEFAULT_STATE, State
from cli.place import Place, at, repository

out = Console(soft_wrap=True, highlight=False)
TENANT = "demo"


@dataclass
class Outcome:
    """What came back for one sample."""

    text: str
    extra: dict[str, Any]
    error_code: str = ""
    windows: int = 0

    @property
    def status(self) -> str:
        """Status of the answer; a refusal before any model counts as blocked."""
        return "blocked" if self.error_code == "content_policy_violation" else str(self.extra.get("status", ""))


def samples(domain: str = "") -> list[dict[str, Any]]:
    """Return the sample requests of one domain, or of all."""
    files = sorted((repository() / "domains").glob(f"{domain or '*'}/samples.jsonl"))
    return [{**json.loads(line), "domain": file.parent.name} for file in files for line in file.read_text().splitlines() if line.strip()]


def send(place: Place, key: str, sample: dict[str, Any], *, show: bool = True) -> Outcome:
    """Send one sample and return what came back, printing the answer as it arrives."""
    try:
        if not sample["request"].get("stream"):
            completion = complete(place, key, sample["request"])
            outcome = Outcome(completion["choices"][0]["message"]["content"] or "", completion.get("strata") or {})
            if show:
                out.print(f"[bold cyan]<[/bold cyan] {outcome.text}", markup=True)
            return outcome
        return _send_streamed(place, key, sample, show=show)
    except GatewayError as error:
        if show:
            out.print(f"[bold cyan]<[/bold cyan] [yellow]refused, HTTP {error.http_status} {error.code}[/yellow]: {error}")
        return Outcome("", {}, error.code)


def _send_streamed(place: Place, key: str, sample: dict[str, Any], *, show: bool) -> Outcome:
    outcome, started = Outcome("", {}), time.monotonic()
    for chunk in stream(place, key, sample["request"]):
        text = "".join(choice["delta"].get("content") or "" for choice in chunk.get("choices") or [])
        outcome.extra = chunk.get("strata") or outcome.extra
        if text:
            outcome.windows += 1
            outcome.text += text
            if show:
                out.print(f"[bold cyan]<[/bold cyan] [dim]{time.monotonic() - started:5.2f} s, window {outcome.windows}:[/dim] {text}")
    return outcome


def problems(sample: dict[str, Any], outcome: Outcome) -> list[str]:
    """Return what in the outcome is not as the sample expects; empty when all is."""
    expect, extra = sample["expect"], outcome.extra
    found = []
    if outcome.status != expect["status"]:
        found.append(f"status {outcome.status or outcome.error_code!r} instead of {expect['status']!r}")
    if "intent" in expect and extra.get("intent") != expect["intent"]:
        found.append(f"intent {extra.get('intent')!r} instead of {expect['intent']!r}")
    if expect.get("has_citations") and not extra.get("citations"):
        found.append("no citations")
    if "tool" in expect and expect["tool"] not in (extra.get("tools") or []):
        found.append(f"tool {expect['tool']!r} was not called")
    if "error_code" in expect and outcome.error_code != expect["error_code"]:
        found.append(f"error {outcome.error_code!r} instead of {expect['error_code']!r}")
    found += [f"{part!r} is missing" for part in expect.get("contains", []) if part not in outcome.text]
    found += [f"{part!r} should not be there" for part in expect.get("absent", []) if part in outcome.text]
    if sample["request"].get("stream") and outcome.windows < 1:
        found.append("nothing was streamed")
    return found


def _ask_all(place: Place, chosen: list[dict[str, Any]]) -> tuple[list[str], str]:
    """Send every sample; return the names of those that went wrong and the trace worth showing."""
    plain: dict[str, str] = {}
    failed, trace = [], ""
    for number, sample in enumerate(chosen, 1):
        role = sample["role"]
        if role not in plain:
            plain[role] = asyncio.run(create_key(place, {"tenant": TENANT, "role": role, "user": "demo"})).plain
        out.print(Rule(f"[bold]{number}/{len(chosen)}  {sample['title']}[/bold]  [dim]({sample['domain']}, {role})[/dim]", align="left"))
        out.print(f"[bold magenta]>[/bold magenta] {sample['request']['messages'][-1]['content']}")
        outcome = send(place, plain[role], sample)
        if outcome.extra:
            show_origin(outcome.extra)
        if wrong := problems(sample, outcome):
            failed.append(sample["name"])
            out.print(f"  [red]not as expected: {'; '.join(wrong)}[/red]")
        if outcome.extra.get("citations") and outcome.extra.get("trace_id"):
            trace = outcome.extra["trace_id"]
        out.print()
    return failed, trace


def _show_trace(place: Place, trace: str) -> None:
    """Print the story of one request once its last record has reached the log."""
    deadline = time.monotonic() + 10
    while True:
        records = asyncio.run(fetch(place, trace))
        if any(r["record"].get("step") == "response" for r in records) or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    print_story(records)


def demo(
    state: State = DEFAULT_STATE,
    domain: Annotated[str, typer.Option(help="Only the samples of this domain.")] = "",
) -> None:
    """Send the sample requests, show what comes back, then the trace of one and the proof of the log."""
    place = at(state)
    chosen = samples(domain)
    if not chosen:
        raise InputError(f"no samples of {domain or 'any domain'!r} under {repository() / 'domains'}")
    out.print(
        f"[bold]{len(chosen)} requests to {place.gateway_url}[/bold]: gateway, bus, guardrail, router, retriever, tools, model, and back.\n"
    )
    failed, trace = _ask_all(place, chosen)
    if trace:
        out.print(Rule(f"[bold]strata trace show {trace}[/bold]", align="left"))
        _show_trace(place, trace)
    out.print(Rule("[bold]strata audit verify[/bold]", align="left"))
    (entry,) = entry_points(group="strata.verifiers", name="audit")
    result = entry.load()(place.state_dir / "audit")
    out.print(
        f"[green]intact[/green]: {result.size} records, head {result.head}" if result.intact else f"[red]altered[/red]: {result.problem}"
    )
    out.print(f"\n{len(chosen) - len(failed)} of {len(chosen)} as expected" + (f"; not: {', '.join(failed)}" if failed else ""))
    if failed or not result.intact:
        raise typer.Exit(1)
