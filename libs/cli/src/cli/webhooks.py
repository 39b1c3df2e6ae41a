"""`strata webhook`: where events of a tenant go, and what became of each."""

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.console import Console

from cli.connection import ask_gateway
from cli.options import DEFAULT_STATE, AsJson, State, print_json
from cli.place import at

app = typer.Typer(no_args_is_help=True, help="Signed events at addresses of a tenant.")
out = Console(soft_wrap=True)
Key = Annotated[str, typer.Option(envvar="STRATA_API_KEY", help="API key of a role with webhook:write.")]
Name = Annotated[str, typer.Argument(metavar="ID", help="Webhook, such as wh_0123.")]


def _call(state: Path, key: str, method: str, path: str = "", body: dict[str, Any] | None = None) -> dict[str, Any]:
    return ask_gateway(at(state), key, method, f"webhooks{path}", json=body)


def _show(content: dict[str, Any], text: str, *, as_json: bool) -> None:
    if as_json:
        print_json(content)
    else:
        out.print(text, highlight=False, markup=False)


def _line(webhook: dict[str, Any]) -> str:
    state = "enabled" if webhook["enabled"] else f"disabled: {webhook.get('disabled_reason', '')}"
    return f"{webhook['id']}  {webhook['url']}  {','.join(webhook['events'])}  {state}"


@app.command()
def add(
    url: Annotated[str, typer.Argument(help="Address, https.")],
    key: Key,
    events: Annotated[str, typer.Option(help="Comma-separated: request.finished, escalation.created, review.decided.")] = "review.decided",
    state: State = DEFAULT_STATE,
    *,
    as_json: AsJson = False,
) -> None:
    """Register an address and print its secret, this once."""
    made = _call(state, key, "POST", body={"url": url, "events": [event.strip() for event in events.split(",")]})
    _show(made, f"{_line(made)}\nsecret {made['secret']}", as_json=as_json)


@app.command("list")
def list_(key: Key, state: State = DEFAULT_STATE, *, as_json: AsJson = False) -> None:
    """Print the registrations."""
    found = _call(state, key, "GET")
    _show(found, "\n".join(map(_line, found["data"])) or "no webhooks", as_json=as_json)


def _action(name: str, words: str) -> Any:
    def run(webhook: Name, key: Key, state: State = DEFAULT_STATE, *, as_json: AsJson = False) -> None:
        method, ending = ("DELETE", "") if name == "delete" else ("POST", f"/{name}")
        done = _call(state, key, method, f"/{quote(webhook, safe='')}{ending}")
        secret = f"\nsecret {done['secret']}, the old one until {done['old_until']}" if "secret" in done else ""
        _show(done, f"{name}: {webhook}{secret}", as_json=as_json)

    run.__doc__ = words
    return run


app.command("enable")(_action("enable", "Send events there again."))
app.command("disable")(_action("disable", "Send nothing there."))
app.command("delete")(_action("delete", "Forget a registration."))
app.command("rotate")(_action("rotate", "Print a new secret; the old one signs too for a while."))
app.command("test")(_action("test", "Send an event that means nothing."))
app.command("redrive")(_action("redrive", "Send again what failed."))


@app.command()
def log(webhook: Name, key: Key, state: State = DEFAULT_STATE, *, as_json: AsJson = False) -> None:
    """Print the deliveries, newest first."""
    found = _call(state, key, "GET", f"/{quote(webhook, safe='')}/deliveries")
    lines = []
    for delivery in found["data"]:
        last = (delivery.get("attempts") or [{}])[-1]
        what = last.get("status") or last.get("error") or "-"
        lines.append(f"{delivery['created_at']}  {delivery['id']}  {delivery['type']:<20} {delivery['state']:<10} {what}")
    _show(found, "\n".join(lines) or "nothing was sent yet", as_json=as_json)
