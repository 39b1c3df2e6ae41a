"""How the command reaches a running stack: the bus, gRPC and HTTP, each as the identity `cli`."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import nats

from chassis.errors import ServiceError
from chassis.messaging import Bus, connect
from chassis.provisioning import PROVISIONER
from chassis.settings import ServiceSettings
from cli.leaving import InputError, NotRunningError
from cli.place import Place
from cli.processes import is_running
from contracts import streams


class GatewayError(ServiceError):
    """The gateway refused; `http_status` is that of its answer."""

    def __init__(self, message: str, code: str, http_status: int) -> None:
        """Keep the stable code and the HTTP status."""
        super().__init__(message, code=code)
        self.http_status = http_status


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
    """Return settings that point at this stack; raise NotRunningError when it does not run."""
    # Containers have no supervisor that could be asked; each service has a host of its own.
    if not os.environ.get("STRATA_PEER_HOST"):
        stack = place.stack()
        if not stack or not is_running(stack["supervisor"]):
            raise NotRunningError(f"nothing runs under {place.state_dir}; `strata up` starts it")
    place.apply()
    return Settings()


@asynccontextmanager
async def bus(place: Place) -> AsyncIterator[Bus]:
    """Connect to the bus of a running stack."""
    connection = await connect(settings(place), "cli", reconnect=False)
    try:
        yield connection
    finally:
        await connection.client.close()


def authorization(key: str) -> dict[str, str]:
    """Return the header that carries an API key; raise InputError for a text that no header can carry."""
    if not (key.isascii() and key.isprintable()):
        raise InputError("the API key has characters that no key has")
    return {"authorization": f"Bearer {key}"}


def raise_refusal(response: httpx.Response) -> None:
    """Raise GatewayError for an answer, read already, that refuses."""
    if response.status_code < 400:
        return
    try:
        error = response.json()["error"]
        raise GatewayError(error["message"], error["code"], response.status_code)
    except (ValueError, KeyError, TypeError):
        raise GatewayError(response.text[:200], "invalid_response", response.status_code) from None


def ask_gateway(place: Place, key: str, method: str, path: str, *, timeout: httpx.Timeout | float = 30, **options: Any) -> dict[str, Any]:
    """Return the gateway's JSON answer; raise GatewayError for a refusal, httpx.TransportError when it does not answer."""
    response = httpx.request(method, f"{place.gateway_url}/v1/{path}", headers=authorization(key), timeout=timeout, **options)
    raise_refusal(response)
    try:
        content: dict[str, Any] = response.json()
    except ValueError:
        raise GatewayError(response.text[:200], "invalid_response", response.status_code) from None
    return content
