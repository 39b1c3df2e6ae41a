"""Feeds over a real bus, index and encoder, and the recordings of a real Debezium Server."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml
from nats.aio.client import Client

from chassis.messaging import Bus, connect
from chassis.tasks import end
from encoders import Encoder
from encoders.encoder import Vectors
from ingestor import catalogue
from ingestor.cdc import mapping
from ingestor.cdc.declaration import FeedSettings
from ingestor.cdc.feed import Feed
from ingestor.cdc.groups import Message
from ingestor.cdc.mapping import Table
from ingestor.ledger import Ledger
from ingestor.library import Library
from ingestor.settings import Settings
from knowledge.lance import LanceIndex
from knowledge.schema import Chunk, Kind
from testkit.nats import NatsServer

SETTINGS = FeedSettings(
    group_seconds=0.1, idle_seconds=0.05, sweep_seconds=0.2, compare_seconds=3600, verify_seconds=3600, retry_seconds=0.05
)
STOCK: dict[str, Any] = {
    "key": ["store_id", "sku"],
    "columns": {"price": "decimal(2)"},
    "collection": "stock",
    "document": {
        "id": "{{ store_id }}-{{ sku }}",
        "title": "{{ sku }}",
        "text": "{{ quantity }} pieces of {{ sku }} in store {{ store_id }} at {{ price }}. {{ note }}",
        "metadata": {"store": "{{ store_id }}"},
    },
}
POLICY: dict[str, Any] = {
    "key": ["id"],
    "columns": {"effective": "date", "meta": "json"},
    "collection": "policy",
    "document": {
        "id": "{{ id }}",
        "title": "{{ title }}",
        "text": "{{ body }}",
        "metadata": {"audience": "{{ meta.audience if meta else '' }}", "effective": "{{ effective }}"},
        "labels": "public",
    },
}
PRODUCTS: dict[str, Any] = {
    "key": ["id"],
    "collection": "products",
    "document": {
        "id": "{{ id }}",
        "title": "{{ name }}",
        "text": "{{ body }}",
        "labels": "{{ audience }}",
        "metadata": {"shelf": "{{ shelf }}"},
        "expires_at": "{{ ends }}",
    },
}


def declared(folder: Path, sources: dict[str, dict[str, Any]], **options: Any) -> tuple[Table, ...]:
    """Write a domain with one fluid collection for each table and return its tables; `sources` are tables by source."""
    domain = folder / "domains" / "desk"
    (domain / "documents").mkdir(parents=True, exist_ok=True)
    (domain / "documents" / "none.jsonl").write_text("")
    names = [table["collection"] for tables in sources.values() for table in tables.values()]
    entry = {"kind": "fluid", "path": "documents/none.jsonl", "owner": "desk", "review_date": "2030-01-01", "licence": "CC0-1.0"}
    (domain / "domain.yaml").write_text(yaml.safe_dump({"collections": [{"name": name, **entry} for name in names]}))
    entries = [{"name": name, "driver": "external", **options, "tables": tables} for name, tables in sources.items()]
    (domain / "sources.yaml").write_text(yaml.safe_dump({"sources": entries}))
    return mapping.load(folder / "domains", catalogue.load(folder / "domains"))


def envelope(op: str, lsn: int, row: dict[str, Any], **source: Any) -> bytes:
    """Return a plain envelope of a row; a deletion carries the key alone."""
    values = {"before": {"id": row["id"]}, "after": None} if op == "d" else {"before": None, "after": row}
    return json.dumps({**values, "op": op, "source": {"lsn": lsn, "ts_ms": 1_790_000_000_000 + lsn, **source}}).encode()


def product(number: int, body: str = "", **changes: Any) -> dict[str, Any]:
    """Return an invented row."""
    row = {"id": number, "name": f"Lamp {number}", "body": body or f"A lamp number {number} for a desk.", "audience": "public"}
    return {**row, "shelf": "a1", "ends": None, **changes}


def recording(name: str) -> list[Message]:
    """Return a recording as the stream would hold it; skip where the shared data are not."""
    file = next((parent / "shared" / "data" / "cdc" / f"{name}.jsonl" for parent in Path(__file__).parents
                 if (parent / "shared" / "data" / "cdc").is_dir()), None)  # fmt: skip
    if file is None:
        pytest.skip("needs the recordings of change events beside the checkout")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows = [row for row in rows if row["subject"].startswith("cdc.")]
    return [Message(number, row["subject"], _body(row["data"])) for number, row in enumerate(rows, 1)]


def _body(data: Any) -> bytes:
    return data.encode() if isinstance(data, str) else json.dumps(data).encode()


def held(index: LanceIndex, collection: str) -> dict[str, list[Chunk]]:
    """Return what the index holds now of a collection, by document."""
    keys = sorted({entry.document_key for entry in index.inventory(Kind.FLUID, collection)})
    found = index.documents(Kind.FLUID, keys)
    return {key: sorted((c for c in chunks if c.closed_position is None), key=lambda c: c.start) for key, chunks in found.items()}


def texts(index: LanceIndex, collection: str) -> dict[str, str]:
    """Return the text of every document of a collection."""
    return {key.partition("/")[2]: " ".join(chunk.text for chunk in chunks) for key, chunks in held(index, collection).items() if chunks}


class CountingEncoder:
    """The real encoder, which also says what it was asked for."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder, self.texts = encoder, list[str]()

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Encode, and remember the texts."""
        self.texts += texts
        return self._encoder.encode(texts)


@dataclass
class Rig:
    """Everything that a feed stands on."""

    folder: Path
    index: LanceIndex
    library: Library
    encoder: CountingEncoder
    bus: Bus
    admin: Client
    asked: list[tuple[str, str]]

    @property
    def ledger(self) -> Path:
        """File of the ledger."""
        return self.folder / "ledger.db"

    @asynccontextmanager
    async def feed(self, tables: Sequence[Table], settings: FeedSettings = SETTINGS, **options: Any) -> AsyncIterator[Feed]:
        """Run a feed inside the block."""

        async def ask(source: str, reason: str) -> None:
            self.asked.append((source, reason))

        feed = Feed(tables, self.index, self.library, self.ledger, self.bus, settings, resnapshot=ask, **options)
        task = asyncio.create_task(feed.run())
        try:
            yield feed
        finally:
            await end(task)

    async def send(self, subject: str, *bodies: bytes) -> None:
        """Publish events, in order."""
        for body in bodies:
            await self.admin.jetstream().publish(subject, body)


@pytest.fixture(scope="session")
def real_encoder() -> Encoder:
    """Return the encoder, loaded once."""
    return Encoder.load(threads=1)


@pytest.fixture
def counting(real_encoder: Encoder) -> CountingEncoder:
    """Return the encoder with an empty count."""
    return CountingEncoder(real_encoder)


@pytest.fixture
def index(tmp_path: Path, real_encoder: Encoder) -> LanceIndex:
    """Return an empty index."""
    return LanceIndex.create(tmp_path / "knowledge", real_encoder.identity.key())


@pytest.fixture
def library(tmp_path: Path, index: LanceIndex, counting: CountingEncoder) -> Iterator[Library]:
    """Return a library over a ledger of its own."""
    ledger = Ledger(tmp_path / "announcements.db")
    yield Library(index, counting, ledger, longest_text_bytes=100_000)
    ledger.close()


@pytest_asyncio.fixture
async def rig(
    bus: NatsServer, admin: Client, tmp_path: Path, index: LanceIndex, library: Library, counting: CountingEncoder
) -> AsyncIterator[Rig]:
    """Return a rig connected as ingestor."""
    del bus
    connection = await connect(Settings(), "ingestor")
    yield Rig(tmp_path, index, library, counting, connection, admin, [])
    await connection.drain()


Tables = Callable[..., tuple[Table, ...]]


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    """Return what declares the tables of sources."""
    return lambda sources, **options: declared(tmp_path, sources, **options)
