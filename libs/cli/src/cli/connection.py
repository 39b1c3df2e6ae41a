"""How the command reaches a running stack: the bus, gRPC and HTTP, each as the identity `cli`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import typer
from rich.console import Console

from chassis.messaging import Bus, connect
from chassis.settings import ServiceSettings
from cli.place import Place
from cli.supervisor import is_running

_err = Console(stderr=True)


class Settings(ServiceSettings):
    """The command has no settings of its own."""


def settings(place: Place) -> Settings:
    """Return settings that point at this stack; leave with one line when it does not run."""
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
