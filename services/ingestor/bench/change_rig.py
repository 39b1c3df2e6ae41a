"""What the benchmarks of change events run: PostgreSQL, the bus, the engine of the index, and ingestor as a process."""  # noqa: INP001 - beside scripts

import asyncio
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg2
import yaml

from encoders import Encoder
from knowledge import backends
from knowledge.backends import Backend, BackendSettings
from knowledge.index import Index
from knowledge.opensearch_client import Connection, OpenSearchSettings
from knowledge.opensearch_provisioning import setup
from testkit.nats import NatsServer, nats_server
from testkit.opensearch import OpenSearchNode, opensearch_home, opensearch_node
from testkit.postgres import PostgresServer, postgres_binaries, postgres_server

COLLECTION = "products"
_INGESTOR = Path(__file__).with_name("counted_ingestor.py")
_TABLE = {
    "key": ["id"],
    "collection": COLLECTION,
    "document": {"id": "{{ id }}", "title": "{{ name }}", "text": "{{ body }}", "labels": "{{ audience }}"},
}
TABLE_SQL = "create table products (id int primary key, name text not null, body text not null, audience text not null)"


class AbsentError(RuntimeError):
    """A server that the benchmark needs is not installed."""


@dataclass
class Rig:
    """The servers, and ingestor while it runs."""

    folder: Path
    postgres: PostgresServer
    dsn: str
    nats: NatsServer
    node: OpenSearchNode | None
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def settings(self) -> BackendSettings:
        """Settings of the index."""
        return BackendSettings(backend="opensearch", url=self.node.url) if self.node else BackendSettings()

    def start(self) -> None:
        """Start ingestor; it writes its log beside the domains."""
        environment = {
            **os.environ,
            "STRATA_STATE_DIR": str(self.nats.state_dir),
            "STRATA_PORT_OFFSET": str(self.nats.port_offset),
            "STRATA_HOME": str(self.folder),
            "STRATA_INGESTOR_KNOWLEDGE__BACKEND": self.settings.backend,
            "STRATA_INGESTOR_KNOWLEDGE__URL": self.settings.url,
            "BENCH_DSN": self.dsn,
        }
        with (self.folder / "ingestor.log").open("ab") as log:
            command = [sys.executable, str(_INGESTOR), str(self.folder / "embedded")]
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def kill(self) -> None:
        """End ingestor as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def running(self) -> bool:
        """Return whether ingestor has not ended."""
        return self.process is not None and self.process.poll() is None

    def reader(self) -> Index:
        """Open the index as retriever does; raise IndexMissingError where there is none yet."""
        return backends.open_index(self.settings, self.nats.state_dir, "retriever", Encoder.load(threads=1).identity.key())

    def embedded(self) -> int:
        """Return how many texts the encoder was asked for, in all lives of the process."""
        file = self.folder / "embedded"
        return sum(map(int, file.read_text().split())) if file.exists() else 0

    def buried(self) -> int:
        """Return how many events became dead letters."""
        store = sqlite3.connect(self.nats.state_dir / "knowledge" / "sources.db", timeout=30)
        found = store.execute("SELECT sum(dead) FROM cdc_sources").fetchone()[0]
        store.close()
        return int(found or 0)

    def cpu_seconds(self) -> float:
        """Return the processor time that ingestor has used in this life."""
        assert self.process is not None  # noqa: S101 - asked while it runs
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def rig(backend: Backend) -> Iterator[Rig]:
    """Start the servers with an empty table, and end all at the end; raise AbsentError where one is not installed."""
    binaries, home = postgres_binaries(), opensearch_home()
    if binaries is None:
        raise AbsentError("PostgreSQL's initdb and postgres are not installed")
    if backend == "opensearch" and home is None:
        raise AbsentError("there is no OpenSearch to start")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="strata-changes-")))
        postgres = stack.enter_context(postgres_server(binaries))
        nats = stack.enter_context(nats_server(folder / "state"))
        node = stack.enter_context(opensearch_node(home)) if backend == "opensearch" and home else None
        rig = Rig(folder, postgres, postgres.create_database("shop"), nats, node)
        _declare(folder)
        asyncio.run(nats.declare())
        if node is not None:
            options = {"url": node.url, "ca_file": node.ca_file, "user": node.user, "password_file": node.password_file}
            admin = Connection(OpenSearchSettings.model_validate(options))
            setup(admin, nats.state_dir / "credentials", Encoder.load(threads=1).identity.key())
            admin.close()
        connection = psycopg2.connect(rig.dsn)
        with connection, connection.cursor() as cursor:
            cursor.execute(TABLE_SQL)
        connection.close()
        try:
            yield rig
        finally:
            rig.kill()


def _declare(folder: Path) -> None:
    """Write the domain that maps the table."""
    domain = folder / "domains" / "bench"
    (domain / "documents").mkdir(parents=True)
    (domain / "documents" / "none.jsonl").write_text("")
    entry = {"name": COLLECTION, "kind": "fluid", "path": "documents/none.jsonl", "owner": "bench", "review_date": "2030-01-01"}
    (domain / "domain.yaml").write_text(yaml.safe_dump({"collections": [{**entry, "licence": "invented", "labels": ["public"]}]}))
    source = {"name": "shop", "driver": "postgres", "dsn_env": "BENCH_DSN", "tables": {"public.products": _TABLE}}
    (domain / "sources.yaml").write_text(yaml.safe_dump({"sources": [source]}))
