"""`strata stop`: the emergency stop, effective everywhere within a second."""

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.console import Console

from cli.connection import ask_gateway
from cli.options import DEFAULT_STATE, AsJson, State, print_json
from cli.place import at

app = typer.Typer(no_args_is_help=True, help="Stop a tenant, workflow, tool, adapter or everything, at once.")
out = Console(soft_wrap=True)
Key = Annotated[str, typer.Option(envvar="STRATA_API_KEY", help="API key of a role with stop:write or stop:lift.")]
Scope = Annotated[str, typer.Argument(help="all, tenant.NAME, workflow.NAME, tool.NAME or adapter.NAME with '-' for '@'.")]


def _call(state: Path, key: str, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    return ask_gateway(at(state), key, method, f"stops{path}", json=body)


def _show(content: dict[str, Any], text: str, *, as_json: bool) -> None:
    if as_json:
        print_json(content)
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
    stop = _call(state, key, "DELETE", f"/{quote(scope, safe='')}")
    _show(stop, f"lifted: {stop['scope']}, set by {stop['set_by']}, lifted by {stop['lifted_by']}", as_json=as_json)
