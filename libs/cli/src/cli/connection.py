"""How the command reaches a running stack: the bus, gRPC and HTTP, each as the identity `cli`."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import typer
from rich.console import Console

from chassis.messaging import Bus, connect
from chassis.provisioning import PROVISIONER
from chassis.settings import ServiceSettings
from cli.place import Place
from cli.processes import is_running
from contracts import streams

_err = Console(stderr=True)


async def declare(url: str, state_dir: Path) -> None:
    """Declare every stream, consumer and bucket on the bus at `url`; raise OSError or a NATS error when it does not answer."""
    seed = state_dir / "credentials" / PROVISIONER / "nats.seed"
    client = await nats.connect(url, nkeys_seed=str(seed), allow_reconnect=False, connect_timeout=1)
    try:
        await streams.declare(client.jetstream())
    finally:
        await client.close()


class Settings(ServiceSettings):
    """The command has no settings of its own."""


def settings(place: Place) -> Settings:
    """Return settings that point at this stack; leave with one line when it does not run."""
    if os.environ.get("STRATA_PEER_HOST"):
        # Containers have no supervisor that could be asked; each service has a host of its own.
        place.apply()
        return Settings()
    stack = place.stack()
    if not stack or not is_running(stack["supervisor"]):
        _err.print(f"[red]strata:[/red] nothing runs under {place.state_dir}; `strata up` starts it", highlight=False, soft_wrap=True)
        raise typer.Exit(3)
    place.apply()
    return Settings()


@asynccontextmanager
async def bus(place: Place) -> AsyncIterator[Bus]:
    """Connect to the bus of a running stack."""
    connection = await connect(settings(place), "cli")
    try:
        yield connection
    finally:
        await connection.client.close()
