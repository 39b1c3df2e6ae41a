"""Vectors between encoder and index: what a crash or an index that is away costs."""

import datetime as dt
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from chassis.errors import UnavailableError
from encoders.encoder import DIMENSIONS
from ingestor.cdc.declaration import FeedSettings
from ingestor.cdc.embedding import EmbeddingLane
from ingestor.cdc.spool import VectorSpool
from ingestor.library import Embedded, Library, Upsert
from knowledge.lance import LanceIndex
from knowledge.schema import Document, Kind


def _embedded(encoder: str, *texts: str) -> Embedded:
    return Embedded(encoder, {text: [len(text) / 8] * DIMENSIONS for text in texts})


def test_a_spool_gives_back_what_a_killed_process_wrote(tmp_path: Path) -> None:
    """Whole records are found again for their encoder only, a torn one is dropped, and what is cleared is gone."""
    file = tmp_path / "spool"
    spool = VectorSpool(file)
    spool.add(_embedded("one", "lamp", "lampshade"))
    with file.open("ab") as torn:
        torn.write(b"half of a record")
    again = VectorSpool(file)
    again.add(_embedded("one", "desk"))
    found = VectorSpool(file)
    assert found.known("one", ["lamp", "lampshade", "desk", "oak"]) == _embedded("one", "lamp", "lampshade", "desk").vectors
    assert found.known("two", ["lamp"]) == {}
    found.clear()
    assert VectorSpool(file).known("one", ["lamp"]) == {}


def test_texts_are_embedded_once_though_the_index_is_away(
    library: Library, index: LanceIndex, counting: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their vectors wait in the spool for the index, also over a restart of the lane."""
    documents = [Document("products", Kind.FLUID, f"{n}", f"Lamp {n}", f"A lamp number {n}.", position=n) for n in range(1, 8)]
    library.apply([Upsert(document, dt.datetime.now(dt.UTC)) for document in documents], {})
    fill, refused = Library.fill, []

    def away(self: Library, keys: Sequence[str], embedded: Embedded) -> bool:
        if len(refused) < 2:
            refused.append(len(keys))
            raise UnavailableError("the index is away")
        return fill(self, keys, embedded)

    monkeypatch.setattr(Library, "fill", away)
    for enough in (1, 3):
        lane = EmbeddingLane(library, tmp_path / "spool", FeedSettings(), lambda _batch: None)
        lane.start()
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline and len(refused) < enough and not lane.idle():
            time.sleep(0.02)
        lane.stop(180)
    assert (refused, index.without_vector(Kind.FLUID, 10)) == ([7, 7], [])
    assert sorted(counting.texts) == sorted(f"Lamp {n}\nA lamp number {n}." for n in range(1, 8))
