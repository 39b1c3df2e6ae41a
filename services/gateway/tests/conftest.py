"""A gateway on a real bus, with a scripted orchestrator behind it and the official client before it."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from nats.aio.client import Client
from openai import AsyncOpenAI

from chassis import process, telemetry
from gateway.main import start
from gateway.settings import Settings
from testkit.nats import NatsServer

sys.path.insert(0, str(Path(__file__).parent))
import scripted

UNAUTHORIZED = 401
REPOSITORY = Path(__file__).parents[3]
telemetry.configure("gateway")


@dataclass
class Stack:
    """The gateway and what is around it."""

    url: str
    key: str
    admin: Client
    orchestrator: scripted.Orchestrator
    bus: NatsServer
    clients: list[AsyncOpenAI] = field(default_factory=list)

    def openai(self, key: str | None = None) -> AsyncOpenAI:
        """Return the official client."""
        client = AsyncOpenAI(base_url=f"{self.url}/v1", api_key=key or self.key, max_retries=0, timeout=180)
        self.clients.append(client)
        return client

    def http(self, key: str | None = None) -> httpx.AsyncClient:
        """Return a plain client."""
        return httpx.AsyncClient(base_url=self.url, headers={"authorization": f"Bearer {key or self.key}"}, timeout=180)

    async def new_key(self, *, tenant: str = "acme", role: str = "app", **changes: object) -> str:
        """Store a key and wait until the gateway knows it."""
        key = await scripted.make_key(self.admin, tenant, role, **changes)
        # It reads keys in their order, so one that is good shows that it has read the one before.
        good = key if not changes and tenant.isalnum() else await scripted.make_key(self.admin)
        async with self.http(good) as http:

            async def is_known() -> bool:
                return (await http.get("/v1/models")).status_code != UNAUTHORIZED

            await scripted.until(is_known)
        return key


@asynccontextmanager
async def running(bus: NatsServer, admin: Client, **changes: object) -> AsyncIterator[Stack]:
    """Run a gateway with changed settings."""
    key = await scripted.make_key(admin)
    settings = Settings(drain_seconds=1, models_refresh_seconds=0.3, **changes)
    async with scripted.orchestrator(bus.state_dir) as orchestrator, process.running("gateway", settings, start, serve_health=False):
        stack = Stack(f"http://127.0.0.1:{settings.http_port('gateway')}", key, admin, orchestrator, bus)
        try:
            yield stack
        finally:
            for client in stack.clients:
                await client.close()


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRATA_HOME", str(REPOSITORY))


@pytest.fixture
def run(bus: NatsServer, admin: Client):
    """Return a function that runs a gateway with changed settings."""

    def with_settings(**changes: object):
        return running(bus, admin, **changes)

    return with_settings


@pytest_asyncio.fixture
async def stack(bus: NatsServer, admin: Client) -> AsyncIterator[Stack]:
    """A gateway with default settings, audit and inference beside it."""
    async with scripted.services(admin), running(bus, admin) as running_stack:
        yield running_stack
