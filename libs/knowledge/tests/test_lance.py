"""The index on LanceDB: what is seen, by whom and when."""

import datetime as dt
from dataclasses import replace
from pathlib import Path

import lancedb
import numpy as np
import pytest

from knowledge.index import IndexMissingError
from knowledge.lance import LanceIndex
from knowledge.preparation import cut
from knowledge.schema import SCHEMA, Chunk, Document, Kind, label_key
from knowledge.visibility import Visibility

NOW = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
VECTOR = np.full(384, 384**-0.5, dtype=np.float32)


def _chunks(name: str, text: str = "the kettle whistles", **changes: object) -> list[Chunk]:
    document = Document("notes", Kind.FLUID, name, "Title", text, effective_from=NOW - DAY, tenant=str(changes.pop("tenant", "")))
    return [replace(chunk, vector=VECTOR.tolist(), **changes) for chunk in cut(document, "enc", NOW)]


def _see(**changes: object) -> Visibility:
    return replace(Visibility("acme", frozenset({"public"}), ("notes",), NOW), **changes)


def _found(index: LanceIndex, visible: Visibility, query: str = "kettle") -> list[str]:
    """Return what both legs find, which must be the same here."""
    words = sorted(hit.chunk.document_id for hit in index.lexical(query, visible, 10))
    vectors = sorted(hit.chunk.document_id for hit in index.nearest(VECTOR, visible, 10))
    assert words == vectors
    return words


@pytest.fixture
def index(tmp_path: Path) -> LanceIndex:
    """Return an empty index."""
    return LanceIndex.create(tmp_path, "enc")


def _put(index: LanceIndex, *groups: list[Chunk]) -> None:
    index.replace(Kind.FLUID, {group[0].document_key: group for group in groups})


def test_tenant_labels_collections_and_filters_hide_chunks(index: LanceIndex) -> None:
    """A chunk of another tenant, label, collection or metadata is in neither leg, though its text matches exactly."""
    _put(
        index,
        _chunks("open"),
        _chunks("public", label_key="public"),
        _chunks("staff", label_key="staff"),
        _chunks("both", label_key=label_key(("staff", "public"))),
        _chunks("theirs", tenant="rival"),
        _chunks("ours", tenant="acme", metadata=["site=o'hare", "floor=2"]),
        _chunks("elsewhere", collection="other"),
    )
    assert _found(index, _see()) == ["open", "ours", "public"]
    assert _found(index, _see(labels=frozenset({"staff", "public"}))) == ["both", "open", "ours", "public", "staff"]
    assert _found(index, _see(labels=frozenset())) == ["open", "ours"]
    assert _found(index, _see(tenant="rival")) == ["open", "public", "theirs"]
    assert _found(index, _see(collections=())) == []
    assert _found(index, _see(filters={"site": "o'hare"})) == ["ours"]
    assert _found(index, _see(filters={"site": "o'hare", "floor": "3"})) == []


def test_only_what_is_in_force_is_seen(index: LanceIndex) -> None:
    """Future, superseded, expired and withdrawn chunks are hidden; as-of time moves the window, both borders included right."""
    _put(
        index,
        _chunks("future", effective_from=NOW + DAY),
        _chunks("starts", effective_from=NOW),
        _chunks("superseded", superseded_at=NOW),
        _chunks("expired", expires_at=NOW),
        _chunks("withdrawn", withdrawn_at=NOW + DAY),
    )
    assert _found(index, _see()) == ["starts"]
    assert _found(index, _see(at=NOW - DAY / 2)) == ["expired", "superseded"]
    assert _found(index, _see(at=NOW + 2 * DAY)) == ["future", "starts"]


def test_a_reader_sees_the_commit_of_a_writer_at_once(index: LanceIndex, tmp_path: Path) -> None:
    """Replaced text, tightened access and deletion hold from the next query of another open index, before any tidying."""
    reader = LanceIndex.open(tmp_path, "enc")
    _put(index, _chunks("a"), _chunks("b", label_key="public"))
    assert _found(reader, _see()) == ["a", "b"]
    _put(index, _chunks("b", label_key="staff"))
    assert _found(reader, _see()) == ["a"]
    _put(index, _chunks("a", "a teapot"))
    assert [hit.chunk.document_id for hit in reader.lexical("kettle", _see(), 10)] == []
    index.tidy()
    assert [hit.chunk.text for hit in reader.lexical("teapot", _see(), 10)] == ["a teapot"]
    index.replace(Kind.FLUID, {_chunks("a")[0].document_key: []})
    assert _found(reader, _see(), "teapot") == []
    assert reader.versions()["fluid"] > reader.versions()["anchored"]


def test_both_tables_are_searched_as_one(index: LanceIndex) -> None:
    """Hits of the fluid and the anchored table come in one order."""
    _put(index, _chunks("fluid", "kettle"))
    anchored = _chunks("anchored", "kettle kettle and other words", kind="anchored")
    index.replace(Kind.ANCHORED, {anchored[0].document_key: anchored})
    assert _found(index, _see()) == ["anchored", "fluid"]
    assert {name: held.chunks for name, held in index.holdings().items()} == {"notes": 2}


def test_stored_chunks_come_back_as_they_went_in(index: LanceIndex) -> None:
    """Every column survives, vectors and missing times too."""
    (chunk,) = _chunks("a", metadata=["k=v"])
    _put(index, [chunk])
    (stored,) = index.documents(Kind.FLUID, [chunk.document_key])[chunk.document_key]
    assert {**stored.row(), "vector": []} == {**chunk.row(), "vector": []}
    assert stored.vector == pytest.approx(chunk.vector)


@pytest.mark.parametrize("query", ["", "***", '"unclosed AND (', "title:kettle", "what's + the -kettle"])
def test_no_query_is_a_syntax_error(index: LanceIndex, query: str) -> None:
    """Whatever a person types is words, not operators."""
    _put(index, _chunks("a"))
    assert isinstance(index.lexical(query, _see(), 10), list)


def test_another_encoder_has_no_index(index: LanceIndex, tmp_path: Path) -> None:
    """Opening for another encoder fails and says which encoders there are."""
    with pytest.raises(IndexMissingError, match="enc") as error:
        LanceIndex.open(tmp_path, "other")
    assert error.value.found == ("enc",)


def test_an_index_that_is_being_made_is_not_there_yet(tmp_path: Path) -> None:
    """A reader that comes too early is told so, and the writer completes what a crash left half made."""
    for kind in Kind:
        (tmp_path / f"{kind}_enc.lance").mkdir()
    with pytest.raises(IndexMissingError):
        LanceIndex.open(tmp_path, "enc")
    database = lancedb.connect(tmp_path)
    database.create_table("fluid_enc", schema=SCHEMA, exist_ok=True)
    LanceIndex.create(tmp_path, "enc")
    assert _found(LanceIndex.open(tmp_path, "enc"), _see()) == []


def test_a_chunk_may_wait_for_its_vector(index: LanceIndex) -> None:
    """Words find it at once, vectors only when its own has come; which chunks wait is known."""
    waiting = [replace(chunk, vector=None) for chunk in _chunks("a", "a kettle")]
    _put(index, waiting)
    visible = _see()
    assert [hit.chunk.vector for hit in index.lexical("kettle", visible, 10)] == [None]
    assert index.nearest(VECTOR, visible, 10) == []
    assert [chunk.chunk_id for chunk in index.without_vector(Kind.FLUID, 10)] == [waiting[0].chunk_id]
    index.update(Kind.FLUID, [replace(waiting[0], vector=VECTOR.tolist())])
    assert [hit.chunk.document_id for hit in index.nearest(VECTOR, visible, 10)] == ["a"]
    assert index.without_vector(Kind.FLUID, 10) == []
    assert [entry.embedded for entry in index.inventory(Kind.FLUID, waiting[0].collection)] == [True]


def test_fragments_grow_with_commits_and_are_joined(index: LanceIndex) -> None:
    """Every commit leaves a piece; tidying makes few of many."""
    for number in range(5):
        _put(index, _chunks(f"d{number}"))
    before = index.fragments()["fluid"]
    index.tidy()
    assert (before, index.fragments()["fluid"]) == (5, 1)
