"""A library over a real index and the real encoder, and a folder of domains."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import yaml

from encoders import Encoder
from encoders.encoder import Vectors
from ingestor.ledger import Ledger
from ingestor.library import Library
from knowledge.lance import LanceIndex

# The tests share the module that makes files.
sys.path.insert(0, str(Path(__file__).parent))


class CountingEncoder:
    """The real encoder, which also says what it was asked for."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.texts: list[str] = []

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Encode, and remember the texts."""
        self.texts += texts
        return self._encoder.encode(texts)


@pytest.fixture(scope="session", autouse=True)
def _encoders(encoders_loaded_once: None) -> None:
    """Let services that tests start here load the encoder once."""


@pytest.fixture(scope="session")
def real_encoder() -> Encoder:
    """Return the encoder, loaded once."""
    return Encoder.load()


@pytest.fixture
def encoder(real_encoder: Encoder) -> CountingEncoder:
    """Return the encoder with an empty count."""
    return CountingEncoder(real_encoder)


@pytest.fixture
def index(tmp_path: Path, real_encoder: Encoder) -> LanceIndex:
    """Return an empty index."""
    return LanceIndex.create(tmp_path / "knowledge", real_encoder.identity.key())


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Return an empty ledger."""
    ledger = Ledger(tmp_path / "knowledge" / "ledger.db")
    yield ledger
    ledger.close()


@pytest.fixture
def library(index: LanceIndex, encoder: CountingEncoder, ledger: Ledger) -> Library:
    """Return a library over all of them."""
    return Library(index, encoder, ledger, longest_text_bytes=10_000)


Declare = Callable[[dict[str, tuple[str, list[dict[str, object]]]]], None]


@pytest.fixture
def declare(tmp_path: Path) -> Declare:
    """Return what writes one domain under `tmp_path`: for each collection its kind and its documents."""
    folder = tmp_path / "domains" / "desk"
    (folder / "documents").mkdir(parents=True)

    def write(collections: dict[str, tuple[str, list[dict[str, object]]]]) -> None:
        entries = []
        for name, (kind, documents) in collections.items():
            lines = [json.dumps({"title": str(row["id"]), "metadata": {}, **row}) for row in documents]
            (folder / "documents" / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
            entry = {"name": name, "kind": kind, "path": f"documents/{name}.jsonl", "owner": "desk", "review_date": "2030-01-01"}
            entries.append({**entry, "licence": "CC0-1.0", "labels": ["public"]})
        (folder / "domain.yaml").write_text(yaml.safe_dump({"name": "desk", "collections": entries}))

    return write
