"""Fixtures that every package's tests can ask for by name."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from nats.aio.client import Client

from testkit.nats import NatsServer, nats_server


@pytest_asyncio.fixture
async def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[NatsServer]:
    """A server with all streams declared; the environment points services at it and at its state folder."""
    with nats_server(tmp_path / "state") as server:
        await server.declare()
        monkeypatch.setenv("STRATA_STATE_DIR", str(server.state_dir))
        monkeypatch.setenv("STRATA_PORT_OFFSET", str(server.port_offset))
        yield server


@pytest_asyncio.fixture
async def admin(bus: NatsServer) -> AsyncIterator[Client]:
    """A connection that may do everything, to look at what services did."""
    client = await bus.connect()
    yield client
    await client.close()
