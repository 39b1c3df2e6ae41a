"""Fixtures that every package's tests can ask for by name."""

import asyncio
import functools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from nats.aio.client import Client

from testkit.nats import NatsServer, nats_server
from testkit.opensearch import ABSENT, QUICK_START, OpenSearchNode, opensearch_home, opensearch_node, running_opensearch
from testkit.postgres import PostgresServer, postgres_binaries, postgres_server
from testkit.vllm import Vllm, running_vllm, vllm_server

_ROOM_BYTES = 2 << 30


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state folder of a bus on which everything is declared and nothing was published; tests copy it, which is quicker."""
    folder = tmp_path_factory.mktemp("installation") / "state"
    with nats_server(folder) as server:
        asyncio.run(server.declare())
    return folder


@pytest.fixture(scope="session")
def encoders_loaded_once() -> Iterator[None]:
    """Give whoever loads the same files with the same threads the same encoder: each load takes a second of the processor's time."""
    from encoders import Encoder

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Encoder, "load", functools.cache(Encoder.load))
        yield


@pytest.fixture
def streams_folder() -> Iterator[Path]:
    """An empty folder for the streams, in memory where there is room: how fast a disk syncs is no subject of most tests."""
    memory = Path("/dev/shm")  # noqa: S108 - the folder below it has a name of its own
    is_roomy = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > _ROOM_BYTES
    with tempfile.TemporaryDirectory(prefix="strata-", dir=memory if is_roomy else None) as folder:
        yield Path(folder)


@pytest.fixture
def bus(tmp_path: Path, installation: Path, streams_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NatsServer]:
    """A server with all streams declared; the environment points services at it and at its state folder."""
    state = tmp_path / "state"
    shutil.copytree(installation / "credentials", state / "credentials")
    shutil.copytree(installation / "nats", streams_folder, dirs_exist_ok=True)
    (state / "nats").symlink_to(streams_folder)
    with nats_server(state) as server:
        monkeypatch.setenv("STRATA_STATE_DIR", str(server.state_dir))
        monkeypatch.setenv("STRATA_PORT_OFFSET", str(server.port_offset))
        yield server
        # Nobody reads what an orderly end would write.
        server.kill()


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
    with opensearch_node(home, java_options=QUICK_START) as node:
        yield node


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in one line that the OpenSearch half was skipped, and how to run it."""
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if ABSENT in str(report.longrepr)]
    if skipped:
        terminalreporter.write_line(f"{ABSENT} ({len(skipped)} tests)")
