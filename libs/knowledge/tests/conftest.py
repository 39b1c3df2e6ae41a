"""Both backends under one name: every test of the contract runs against each."""

import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from knowledge import backends
from knowledge.backends import BackendSettings
from knowledge.index import Index
from knowledge.lance import LanceIndex
from knowledge.opensearch_client import Connection, OpenSearchSettings
from knowledge.opensearch_provisioning import setup
from knowledge.tables import LanceTables, OpenSearchTables, Tables
from testkit.opensearch import OpenSearchNode

# Modules of the tests import what they share by name.
sys.path.insert(0, str(Path(__file__).parent))
_NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class Store:
    """A place for indexes: opened for writing as ingestor does it, for reading as retriever does it."""

    encoder: str
    create: Callable[[str], Index]
    open: Callable[[str], Index]
    tables: Tables


@dataclass(frozen=True)
class Cluster:
    """The node after `strata knowledge init`: its administrator, and where the users' passwords are."""

    node: OpenSearchNode
    admin: Connection
    state_dir: Path

    @property
    def settings(self) -> BackendSettings:
        """Settings of a service beside that state folder."""
        return BackendSettings(backend="opensearch", url=self.node.url, search_seconds=60, write_seconds=120)

    def connect(self, service: str) -> Connection:
        """Return a connection as the user of a service."""
        return backends.connect(self.settings, self.state_dir, service)


@pytest.fixture(scope="session")
def cluster(opensearch: OpenSearchNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster that is set up."""
    state_dir = tmp_path_factory.mktemp("state")
    admin = Connection(
        OpenSearchSettings(
            url=opensearch.url,
            ca_file=opensearch.ca_file,
            user=opensearch.user,
            password_file=opensearch.password_file,
            search_seconds=60,
            write_seconds=120,
        )
    )
    setup(admin, state_dir / "credentials", "minilm-setup")
    yield Cluster(opensearch, admin, state_dir)
    admin.call("DELETE", "/strata-*-minilm-setup-*")


@pytest.fixture(scope="session")
def services(cluster: Cluster) -> dict[str, Connection]:
    """One connection for each service."""
    return {service: cluster.connect(service) for service in ("ingestor", "retriever")}


@pytest.fixture(params=["embedded", "opensearch"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty place for indexes on one of the backends."""
    encoder = f"minilm-t{next(_NUMBERS)}"
    if request.param == "embedded":
        tables = LanceTables(tmp_path)
        yield Store(encoder, lambda name: LanceIndex.create(tmp_path, name), lambda name: LanceIndex.open(tmp_path, name), tables)
        return
    from knowledge.opensearch import OpenSearchIndex

    services: dict[str, Connection] = request.getfixturevalue("services")
    cluster: Cluster = request.getfixturevalue("cluster")
    yield Store(
        encoder,
        lambda name: OpenSearchIndex.create(services["ingestor"], name),
        lambda name: OpenSearchIndex.open(services["retriever"], name),
        OpenSearchTables(services["ingestor"]),
    )
    cluster.admin.call("DELETE", f"/strata-*-{encoder}*")


@pytest.fixture
def index(store: Store) -> Any:
    """An empty index, open for writing."""
    return store.create(store.encoder)
