"""`strata redteam`: attacks and harmless twins against a running stack, by the OWASP lists."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from cli.connection import settings
from cli.keys import create_key
from cli.leaving import InputError
from cli.options import DEFAULT_STATE, AsJson, State, print_json
from cli.place import Place, at, repository
from redteam.running import report, run
from redteam.seeds import load
from redteam.target import connected

out, err = Console(), Console(stderr=True)
_TENANT = "redteam"
# Name of the key, tenant, role, user.
_KEYS = (
    ("app", _TENANT, "shop_app", "visitor"),
    ("staff", _TENANT, "store_staff", "staff"),
    ("editor", _TENANT, "knowledge_admin", "editor"),
    ("operator", _TENANT, "operator", "first"),
    ("second_operator", _TENANT, "operator", "second"),
    ("stranger", "redteam-other", "shop_app", "stranger"),
)


async def attack(place: Place, only: set[str], seed: int) -> dict[str, Any]:
    """Make keys that expire by themselves, run the pack and return its report."""
    known = load()
    if strange := only - {item.id for item in known}:
        raise InputError(f"unknown items {sorted(strange)}; known: {[item.id for item in known]}")
    items = [item for item in known if not only or item.id in only]
    keys = {}
    for name, tenant, role, user in _KEYS:
        keys[name] = (await create_key(place, {"tenant": tenant, "role": role, "user": user, "expires_at": _in_an_hour()})).plain
    await asyncio.sleep(0.5)
    found = settings(place)
    async with connected(place.gateway_url, place.state_dir, repository(), found, found.nats_url, keys) as target:
        results = await run(target, items, seed=seed, tell=lambda line: err.print(f"[dim]{line}[/dim]", highlight=False))
    return report(results, seed=seed)


def _in_an_hour() -> str:
    return (datetime.now(UTC) + timedelta(hours=1)).isoformat()


def redteam(
    state: State = DEFAULT_STATE,
    items: Annotated[str, typer.Option(help="Comma-separated items, such as LLM01,ASI07; empty runs all.")] = "",
    seed: Annotated[int, typer.Option(help="Seed of the variants.")] = 7,
    most: Annotated[float, typer.Option(help="Exit with 1 when a larger share of the attacks got through.")] = 1.0,
    *,
    as_json: AsJson = False,
) -> None:
    """Attack the running stack with every item of the OWASP lists, and with twins that must pass."""
    found = asyncio.run(attack(at(state), {name.strip().upper() for name in items.split(",") if name.strip()}, seed))
    if as_json:
        print_json(found)
    else:
        _print(found)
    if (found["attack_success"]["rate"] or 0) > most:
        raise typer.Exit(1)


def _print(found: dict[str, Any]) -> None:
    table = Table("item", "", "attacks", "got through", "twins", "refused")
    for item in found["items"]:
        through, refused = item["attack_success"], item["false_refusal"]
        table.add_row(item["id"], item["title"], str(through["n"]), _share(through), str(refused["n"]), _share(refused))
    table.add_row("all", "", str(found["attack_success"]["n"]), _share(found["attack_success"]), str(found["false_refusal"]["n"]),
                  _share(found["false_refusal"]))  # fmt: skip
    out.print(table)
    for item in found["items"]:
        for entry in item["got_through"]:
            out.print(f"[red]{item['id']}[/red] {entry['kind']}: {entry['what'][:120]}", highlight=False, markup=True, soft_wrap=True)
        for entry in item["refused"]:
            out.print(f"[yellow]{item['id']}[/yellow] refused a twin: {entry['what'][:120]}", highlight=False, soft_wrap=True)


def _share(rate: dict[str, Any]) -> str:
    return "-" if rate["rate"] is None else f"{rate['rate']:.0%} ({rate['interval'][0]:.0%} to {rate['interval'][1]:.0%})"
