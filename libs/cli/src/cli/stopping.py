"""`strata stop`: the emergency stop, effective everywhere within a second."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.markup import escape

from cli.place import at

app = typer.Typer(no_args_is_help=True, help="Stop a tenant, workflow, tool, adapter or everything, at once.")
out, err = Console(soft_wrap=True), Console(stderr=True, soft_wrap=True)
State = Annotated[Path, typer.Option("--state", envvar="STRATA_STATE_DIR", help="Folder of all state of the stack.")]
Key = Annotated[str, typer.Option(envvar="STRATA_API_KEY", help="API key of a role with stop:write or stop:lift.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Scope = Annotated[str, typer.Argument(help="all, tenant.NAME, workflow.NAME, tool.NAME or adapter.NAME with '-' for '@'.")]
DEFAULT_STATE = Path(".strata")


def _call(state: Path, key: str, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    url = f"{at(state).gateway_url}/v1/stops{path}"
    try:
        response = httpx.request(method, url, json=body, headers={"authorization": f"Bearer {key}"}, timeout=10)
        content: dict[str, Any] = response.json()
    except (httpx.HTTPError, ValueError) as error:
        err.print(f"[red]strata:[/red] unreachable: {escape(str(error))}", highlight=False)
        raise typer.Exit(1) from error
    if response.status_code >= 400:
        problem = content["error"]
        err.print(f"[red]strata:[/red] {problem['code']}: {escape(problem['message'])}", highlight=False)
        raise typer.Exit(1)
    return content


def _show(content: dict[str, Any], text: str, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(content) + "\n")
    else:
        out.print(text, highlight=False, markup=False)


@app.command("set")
def set_(
    scope: Scope,
    reason: Annotated[str, typer.Option(help="Why, for the record.")],
    key: Key,
    state: State = DEFAULT_STATE,
    *,
    as_json: AsJson = False,
) -> None:
    """Refuse and cut off whatever the scope covers, until another person lifts the stop."""
    stop = _call(state, key, "POST", "", {"scope": scope, "reason": reason})
    _show(stop, f"stopped: {stop['scope']} by {stop['set_by']} at {stop['set_at']}", as_json=as_json)


@app.command("list")
def list_(key: Key, state: State = DEFAULT_STATE, *, as_json: AsJson = False) -> None:
    """Print what is stopped."""
    stops = _call(state, key, "GET", "")
    lines = [f"{stop['scope']:<30} {stop['set_by']:<24} {stop['set_at']}  {stop['reason']}" for stop in stops["data"]]
    _show(stops, "\n".join(lines) or "nothing is stopped", as_json=as_json)


@app.command()
def lift(scope: Scope, key: Key, state: State = DEFAULT_STATE, *, as_json: AsJson = False) -> None:
    """Lift a stop that somebody else has set."""
    stop = _call(state, key, "DELETE", f"/{scope}")
    _show(stop, f"lifted: {stop['scope']}, set by {stop['set_by']}, lifted by {stop['lifted_by']}", as_json=as_json)
