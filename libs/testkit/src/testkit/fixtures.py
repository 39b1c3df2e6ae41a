"""Fixtures that every package's tests can ask for by name."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from nats.aio.client import Client

from testkit.nats import NatsServer, nats_server
from testkit.opensearch import ABSENT, OpenSearchNode, opensearch_home, opensearch_node, running_opensearch
from testkit.postgres import PostgresServer, postgres_binaries, postgres_server
from testkit.vllm import Vllm, running_vllm, vllm_server


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


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real PostgreSQL with logical decoding, started once; tests make databases of their own in it."""
    binaries = postgres_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL's initdb and postgres are not installed; STRATA_TEST_POSTGRES_BIN names their folder")
    with postgres_server(binaries) as server:
        yield server


@pytest.fixture(scope="session")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vllm]:
    """A real engine with the base model and the adapters that exist, started once, or the one that STRATA_TEST_VLLM_URL names."""
    if running := running_vllm():
        yield running
        return
    with vllm_server(tmp_path_factory.mktemp("vllm")) as server:
        yield server


@pytest.fixture(scope="session")
def other_vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vllm]:
    """A second real engine, always a process of its own with a key of its own."""
    with vllm_server(tmp_path_factory.mktemp("other-vllm")) as server:
        yield server


@pytest.fixture(scope="session")
def opensearch() -> Iterator[OpenSearchNode]:
    """A real node, started once, or the cluster that STRATA_TEST_OPENSEARCH_URL names; skips where there is neither."""
    if running := running_opensearch():
        yield running
        return
    home = opensearch_home()
    if home is None:
        pytest.skip(ABSENT)
    with opensearch_node(home) as node:
        yield node


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in one line that the OpenSearch half was skipped, and how to run it."""
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if ABSENT in str(report.longrepr)]
    if skipped:
        terminalreporter.write_line(f"{ABSENT} ({len(skipped)} tests)")
