"""Whether a deleted document is anywhere, whatever encoders were in use meanwhile, and since when."""

import datetime as dt
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from chassis.errors import FailedPreconditionError
from encoders.encoder import Vectors
from ingestor.cdc.rows import Row, Rows
from ingestor.deletions import Place, Search
from ingestor.encoders_in_use import EncoderSwitch
from ingestor.ledger import Ledger
from ingestor.library import Library
from knowledge.generations import Generation, Generations
from knowledge.lance import LanceIndex
from knowledge.lance_rows import table_name
from knowledge.schema import Document, Kind
from knowledge.switching import Switchable
from knowledge.tables import LanceTables

NOW = dt.datetime.now(dt.UTC)
LAMP = Document("products", Kind.FLUID, "lamp", "Lamp", "A lamp for a desk.")


class _Same:
    """An encoder that cannot tell texts apart."""

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return the same vector for every text."""
        return np.tile(np.eye(1, 384, dtype=np.float32), (len(texts), 1))


@dataclass
class Desk:
    """A document that was taken in under three encoders, one after the other."""

    folder: Path
    generations: Generations
    library: Library
    encoders: EncoderSwitch
    search: Search

    def left(self) -> list[Place]:
        """Return where the lamp still is."""
        return [place for place in self.search.look("products", "lamp", "") if not place.absent]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """Return a desk at its third encoder."""
    generations, ledger = Generations(tmp_path), Ledger(tmp_path / "ledger.db")
    for name in ("one", "two", "three"):
        library = Library(LanceIndex.create(tmp_path, name), _Same(), ledger, longest_text_bytes=1000)
        library.put([LAMP])
        generations.switch(Generation(name))
    pair = Switchable(LanceIndex.create(tmp_path, "three"), _Same())
    library, tables = Library(pair, pair, ledger, longest_text_bytes=1000), LanceTables(tmp_path)
    encoders = EncoderSwitch(
        pair, generations, lambda name: LanceIndex.create(tmp_path, name), threading.RLock(), ["products"],
        threads=1, tables=tables, way_back_days=2,
    )  # fmt: skip
    search = Search(pair, tables, encoders.kept_until, [tmp_path / "ledger.db", tmp_path / "sources.db"])
    return Desk(tmp_path, generations, library, encoders, search)


def test_tables_of_earlier_encoders_are_looked_at_until_they_are_dropped(desk: Desk) -> None:
    """What was deleted is still in the tables of encoders before, which the proof names with their end; then they are dropped."""
    desk.library.remove(Kind.FLUID, "products", "lamp")
    fluid = {name: f"table {table_name(Kind.FLUID, name)}" for name in ("one", "two", "three")}
    ends = {place.name: place.until for place in desk.left() if "versions" not in place.name}
    assert ends.keys() == {fluid["one"], fluid["two"]}
    assert ends[fluid["two"]] is not None
    assert ends[fluid["two"]] - NOW > dt.timedelta(days=1, hours=23)

    assert desk.encoders.expire(NOW) == []
    assert {name.partition("_")[2] for name in desk.encoders.expire(NOW + dt.timedelta(days=1))} == {"one"}
    assert {name.partition("_")[2] for name in desk.encoders.expire(NOW + dt.timedelta(days=3))} == {"two"}
    state = desk.generations.read()
    assert state is not None
    assert (state.serving.encoder, state.previous, state.retired) == ("three", None, ())
    assert {place.name.partition(" (")[0] for place in desk.left()} == {f"table versions of {table_name(Kind.FLUID, 'three')}"}


def test_an_operator_need_not_wait(desk: Desk) -> None:
    """Pruning drops every table that is not searched, also one that nobody remembers having made, and nothing else."""
    LanceIndex.create(desk.folder, "half-built")
    dropped = desk.encoders.prune()
    assert {name.partition("_")[2] for name in dropped} == {"one", "two", "half-built"}
    assert desk.encoders.prune() == []
    assert [place.name for place in desk.left() if "versions" not in place.name] == [
        "index fluid of three",
    ]
    with pytest.raises(FailedPreconditionError, match="no encoder to go back to"):
        desk.encoders.back()


def test_older_states_of_a_table_go_although_nothing_is_written_any_more(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compaction too early to drop the state that holds a deleted document is followed by one that does."""
    monkeypatch.setattr("ingestor.library._REMEMBERED_SECONDS", 0.2)
    desk.encoders.prune()
    desk.library.remove(Kind.FLUID, "products", "lamp")
    desk.library.tidy()
    assert [place.name.partition(" (")[0] for place in desk.left()] == [f"table versions of {table_name(Kind.FLUID, 'three')}"]
    monkeypatch.setattr("knowledge.lance._KEPT", dt.timedelta(milliseconds=1))
    time.sleep(0.3)
    desk.library.tidy(patient=True)
    assert desk.left() == []


def test_a_deletion_is_remembered_for_good(desk: Desk) -> None:
    """A document of a folder that was deleted over the API, and a row whose tombstone is forgotten, keep the moment, not the name."""
    ledger, rows = Ledger(desk.folder / "ledger.db"), Rows(desk.folder / "sources.db")
    ledger.remember("products", [(LAMP.key, "", "hash")])
    desk.library.remove(Kind.FLUID, "products", "lamp")
    with rows.transaction():
        rows.put([Row("shop", "public.products", "7", document_key="products/7", collection="products")])
        assert rows.forget_tombstones(int((NOW + dt.timedelta(days=1)).timestamp() * 1000), 10) == 1

    def decided(document_id: str) -> dict[str, Place]:
        return {place.name: place for place in desk.search.look("products", document_id, "") if place.decides}

    lamp, row = decided("lamp")["ledger ledger.db"], decided("7")["ledger sources.db"]
    assert (lamp.absent, row.absent) == (True, True)
    assert lamp.since is not None
    assert row.since is not None
    assert abs(lamp.since - NOW) < dt.timedelta(hours=1)
    assert decided("8")["ledger sources.db"].since is None
    desk.library.put([LAMP])
    assert not decided("lamp")["ledger ledger.db"].absent
    rows.close()
