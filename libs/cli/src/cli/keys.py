"""`strata keys`: API keys of tenants, printed once and stored as digests."""

import asyncio
import json
import os
import signal
import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import bcrypt
import typer
from nats.js.errors import KeyNotFoundError, NoKeysError
from rich.console import Console
from rich.table import Table

from chassis.errors import NotFoundError
from chassis.provisioning import retire_release_key, rotate_signing_key, write_bus_configuration, write_private
from cli.connection import bus
from cli.leaving import InputError
from cli.options import DEFAULT_STATE, AsJson, State, print_json
from cli.place import Place, at
from contracts import keys
from contracts.identities import tenant_permissions
from contracts.streams import KEYS
from contracts.subjects import InvalidTokenError, token

app = typer.Typer(no_args_is_help=True, help="API keys of tenants.")
out, err = Console(), Console(stderr=True)


async def create_key(place: Place, record: dict[str, Any]) -> keys.NewKey:
    """Store a new key's digest with `record` and return the key."""
    key = keys.new_key()
    content = {**record, "key_id": key.key_id, "digest": key.digest, "created_at": datetime.now(UTC).isoformat()}
    async with bus(place) as connection:
        bucket = await connection.js.key_value(KEYS)
        await bucket.create(key.key_id, json.dumps(content).encode())
    return key


@app.command()
def create(
    tenant: Annotated[str, typer.Option(help="Tenant the key belongs to.")],
    role: Annotated[str, typer.Option(help="Role within the tenant.")],
    user: Annotated[str, typer.Option(help="Who uses it, for the record.")] = "",
    days: Annotated[int, typer.Option(help="Days until it expires; 0 for never.")] = 0,
    state: State = DEFAULT_STATE,
    *,
    nats: Annotated[bool, typer.Option("--nats", help="Also let it log in to the bus, for this tenant's subjects only.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it, once."""
    try:
        record = {"tenant": token(tenant, what="tenant"), "role": token(role, what="role"), "user": user}
    except InvalidTokenError as error:
        raise typer.BadParameter(str(error)) from error
    if days:
        record["expires_at"] = (datetime.now(UTC) + timedelta(days=days)).isoformat()
    place = at(state)
    key = asyncio.run(create_key(place, record))
    if nats:
        _let_in(place, tenant, key)
    if as_json:
        print_json({"key": key.plain, "key_id": key.key_id, "tenant": tenant, "role": role})
    else:
        err.print(f"key {key.key_id} for tenant {tenant}, role {role}; it is shown only now:", highlight=False)
        sys.stdout.write(key.plain + "\n")


def _let_in(place: Place, tenant: str, key: keys.NewKey) -> None:
    """Add a user of the bus whose name is the key's id and whose password is the key."""
    password = bcrypt.hashpw(key.plain.encode(), bcrypt.gensalt(11)).decode()
    user = {"user": key.key_id, "password": password, "permissions": tenant_permissions(tenant, key.key_id)}
    write_private(place.state_dir / "credentials" / "tenants" / f"{key.key_id}.json", json.dumps(user).encode())
    _reload_bus(place)


def _reload_bus(place: Place) -> None:
    # Among containers the bus listens for others; whoever runs them has to tell it to read its file again.
    bind_host = os.environ.get("STRATA_BIND_HOST", "127.0.0.1")
    write_bus_configuration(place.state_dir, port_offset=place.port_offset, bind_host=bind_host)
    stack = place.stack() or {"processes": []}
    for process in stack["processes"]:
        if process["name"] == "nats" and process["pid"]:
            os.kill(process["pid"], signal.SIGHUP)


@app.command("rotate-signing")
def rotate_signing(state: State = DEFAULT_STATE, *, as_json: AsJson = False) -> None:
    """Give guardrail a new key for its releases, without a pause; releases of the old one stay valid until it is retired."""
    old, new = rotate_signing_key(at(state).state_dir)
    if as_json:
        print_json({"old": old, "new": new})
    else:
        out.print(
            f"releases are signed by {new}; retire {old} when its answers are no longer read (a day)", highlight=False, soft_wrap=True
        )


@app.command("retire-signing")
def retire_signing(key_id: Annotated[str, typer.Argument(help="Id of the old key.")], state: State = DEFAULT_STATE) -> None:
    """Trust releases of an old key no more, within half a minute."""
    try:
        retire_release_key(at(state).state_dir, key_id)
    except ValueError as error:
        raise InputError(str(error)) from error
    out.print(f"{key_id} is trusted no more", highlight=False)


async def _records(place: Place) -> list[dict[str, Any]]:
    async with bus(place) as connection:
        bucket = await connection.js.key_value(KEYS)
        try:
            names = await bucket.keys()
        except NoKeysError:
            return []
        return [json.loads((await bucket.get(name)).value or b"{}") for name in names]


@app.command("list")
def list_keys(state: State = DEFAULT_STATE, *, as_json: AsJson = False) -> None:
    """List the keys, without their secrets."""
    shown = ("key_id", "tenant", "role", "user", "created_at", "expires_at", "revoked")
    rows = [{name: record.get(name) for name in shown} for record in asyncio.run(_records(at(state)))]
    if as_json:
        print_json(rows)
        return
    table = Table(*shown)
    for row in rows:
        table.add_row(*(str(row[name] or "-") for name in shown))
    out.print(table)


@app.command()
def revoke(key_id: str, state: State = DEFAULT_STATE) -> None:
    """Make a key worthless, at once."""
    place = at(state)

    async def run() -> None:
        async with bus(place) as connection:
            bucket = await connection.js.key_value(KEYS)
            entry = await bucket.get(key_id)
            record = {**json.loads(entry.value or b"{}"), "revoked": True}
            await bucket.update(key_id, json.dumps(record).encode(), entry.revision)

    try:
        asyncio.run(run())
    except KeyNotFoundError as error:
        raise NotFoundError(f"there is no key {key_id!r}") from error
    if (file := place.state_dir / "credentials" / "tenants" / f"{key_id}.json").exists():
        file.unlink()
        _reload_bus(place)
    err.print(f"key {key_id} is revoked", highlight=False)
