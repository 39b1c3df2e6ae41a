"""What every backend must do: what is seen, by whom and when; what a write replaces, and what it must leave alone."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from index_notes import DAY, NOW, VECTOR, by_words, chunks, found, key, put, see

from knowledge.index import Holding, IndexMissingError
from knowledge.schema import Kind, label_key


def test_tenant_labels_collections_and_filters_hide_chunks(index: Any) -> None:
    """A chunk of another tenant, label, collection or metadata is in neither leg, though its text matches exactly."""
    put(
        index,
        chunks("open"),
        chunks("public", label_key="public"),
        chunks("staff", label_key="staff"),
        chunks("both", label_key=label_key(("staff", "public"))),
        chunks("theirs", tenant="rival"),
        chunks("ours", tenant="acme", metadata=["site=o'hare", "floor=2"]),
        chunks("elsewhere", collection="other"),
    )
    assert found(index, see()) == ["open", "ours", "public"]
    assert found(index, see(labels=frozenset({"staff", "public"}))) == ["both", "open", "ours", "public", "staff"]
    assert found(index, see(labels=frozenset())) == ["open", "ours"]
    assert found(index, see(tenant="rival")) == ["open", "public", "theirs"]
    assert found(index, see(collections=())) == []
    assert found(index, see(filters={"site": "o'hare"})) == ["ours"]
    assert found(index, see(filters={"site": "o'hare", "floor": "3"})) == []


def test_only_what_is_in_force_is_seen(index: Any) -> None:
    """Future, superseded, expired and withdrawn chunks are hidden; as-of time moves the window, both borders included right."""
    put(
        index,
        chunks("future", effective_from=NOW + DAY),
        chunks("starts", effective_from=NOW),
        chunks("superseded", superseded_at=NOW),
        chunks("expired", expires_at=NOW),
        chunks("withdrawn", withdrawn_at=NOW + DAY),
    )
    assert found(index, see()) == ["starts"]
    assert found(index, see(at=NOW - DAY / 2)) == ["expired", "superseded"]
    assert found(index, see(at=NOW + 2 * DAY)) == ["future", "starts"]


def test_a_microsecond_divides_two_versions(index: Any) -> None:
    """Times are as exact as they were given, before 1970 as well, and in every year that there is."""
    old = NOW.replace(year=1902)
    instant = (NOW - NOW.replace(hour=0)).resolution
    put(index, chunks("old", effective_from=old, superseded_at=old + 3 * instant))
    assert [found(index, see(at=old + n * instant)) for n in (-1, 0, 2, 3)] == [[], ["old"], ["old"], []]
    put(index, chunks("ever", effective_from=NOW.replace(year=1), expires_at=NOW.replace(year=9999)))
    assert [found(index, see(at=NOW.replace(year=year))) for year in (1, 999, 9998, 9999)] == [["ever"], ["ever"], ["ever"], []]


def test_a_pinned_version_is_seen_out_of_force(index: Any) -> None:
    """Naming a version shows it superseded or not yet begun, but neither withdrawn nor expired, nor another one."""
    put(
        index,
        chunks("old", version="1", superseded_at=NOW - DAY / 2),
        chunks("coming", version="1", effective_from=NOW + DAY),
        chunks("other", version="2"),
        chunks("withdrawn", version="1", withdrawn_at=NOW),
        chunks("expired", version="1", expires_at=NOW - DAY),
    )
    assert found(index, see(version="1")) == ["coming", "old"]


def test_a_place_in_the_source_shows_what_was_there(index: Any) -> None:
    """With a position, chunks closed later are seen and those written later are not; other collections show their present."""
    put(
        index,
        chunks("first", position=10, closed_position=20),
        chunks("second", position=20),
        chunks("aside", collection="other", position=90),
        chunks("gone", collection="other", position=5, closed_position=6),
    )
    both = ("notes", "other")
    assert found(index, see(collections=both)) == ["aside", "second"]
    assert found(index, see(collections=both, positions={"notes": 19})) == ["aside", "first"]
    assert found(index, see(collections=both, positions={"notes": 20})) == ["aside", "second"]
    assert found(index, see(collections=both, positions={"notes": 9, "other": 5})) == ["gone"]


def test_a_reader_sees_the_commit_of_a_writer_at_once(index: Any, store: Any) -> None:
    """Replaced text, tightened access and deletion hold from the next query of another open index, before any tidying."""
    reader = store.open(store.encoder)
    put(index, chunks("a"), chunks("b", label_key="public"))
    assert found(reader, see()) == ["a", "b"]
    put(index, chunks("b", label_key="staff"))
    assert found(reader, see()) == ["a"]
    put(index, chunks("a", "a teapot"))
    assert by_words(reader, see()) == []
    index.tidy()
    assert [hit.chunk.text for hit in reader.lexical("teapot", see(), 10)] == ["a teapot"]
    index.replace(Kind.FLUID, {key("a"): []})
    assert found(reader, see(), "teapot") == []


def test_labels_nobody_had_before_hold_from_the_next_query(index: Any, store: Any) -> None:
    """A set of labels that is new to the index is known to a reader at once: to whom it hides, and to whom it shows."""
    reader = store.open(store.encoder)
    put(index, chunks("a"))
    assert found(reader, see()) == ["a"]
    for number in range(3):
        labels = (f"fresh{number}", "public")
        put(index, chunks("a", label_key=label_key(labels)))
        assert found(reader, see()) == []
        assert found(reader, see(labels=frozenset(labels))) == ["a"]


def test_versions_grow_with_every_change(index: Any, store: Any) -> None:
    """A commit returns the version that holds it; readers see that version, and only that kind's."""
    reader = store.open(store.encoder)
    before = reader.versions()
    assert set(before) == {"fluid", "anchored"}
    written = [put(index, chunks("a")), put(index, chunks("a")), index.update(Kind.FLUID, chunks("a", title="new"))]
    assert before["fluid"] < written[0] < written[1] < written[2] == reader.versions()["fluid"]
    assert reader.versions()["anchored"] == before["anchored"]
    assert store.create(store.encoder).replace(Kind.FLUID, {key("a"): []}) > written[2]


def test_both_kinds_are_searched_as_one(index: Any) -> None:
    """Hits of the fluid and the anchored index come in one order."""
    put(index, chunks("fluid", "kettle"))
    put(index, chunks("anchored", "kettle kettle and other words", kind="anchored"), kind=Kind.ANCHORED)
    assert found(index, see()) == ["anchored", "fluid"]
    assert {name: held.chunks for name, held in index.holdings().items()} == {"notes": 2}


def test_legs_rank_by_their_own_score(index: Any) -> None:
    """More of a rare word is better by words; a vector nearer is better by cosine, which is the score; ties go by chunk id."""
    axes = np.eye(384, dtype=np.float32)
    put(
        index,
        chunks("a", "kettle kettle kettle", vector=(0.6 * axes[0] + 0.8 * axes[1]).tolist()),
        chunks("b", "a kettle among many other words of no use", vector=axes[0].tolist()),
        chunks("c", "a teapot among many other words", vector=(-axes[0]).tolist()),
        chunks("d", "a teapot among many other words", vector=(-axes[0]).tolist()),
    )
    assert by_words(index, see()) == ["a", "b"]
    nearest = index.nearest(axes[0], see(), 10)
    assert [hit.chunk.document_id for hit in nearest] == ["b", "a", "c", "d"]
    assert [hit.score for hit in nearest] == pytest.approx([1.0, 0.6, -1.0, -1.0], abs=1e-5)
    assert [hit.chunk.document_id for hit in index.nearest(axes[0], see(), 1)] == ["b"]
    assert by_words(index, see(), "teapots") == ["c", "d"]


def test_cosines_are_those_of_the_chunks_asked_for(index: Any) -> None:
    """Each is exact, of chunks of both kinds, and only of those that were named; a chunk that waits for its vector has none."""
    axes = np.eye(384, dtype=np.float32)
    put(index, *(chunks(f"n{n}", vector=(0.6 * axes[0] + 0.8 * axes[n + 1]).tolist()) for n in range(60)), chunks("late", vector=None))
    put(index, chunks("old", kind="anchored", vector=(-axes[0]).tolist()), kind=Kind.ANCHORED)
    every = [hit.chunk for hit in index.lexical("kettle", see(), 100)]
    some = [chunk for chunk in every if chunk.document_id in {"n7", "n50", "old", "late"}]
    names = {chunk.chunk_id: chunk.document_id for chunk in some}
    cosines = {names[name]: cosine for name, cosine in index.cosines(axes[0], some).items()}
    assert cosines == pytest.approx({"n7": 0.6, "n50": 0.6, "old": -1.0}, abs=1e-5)
    assert index.cosines(axes[0], []) == {}


def test_a_chunk_without_a_vector_is_found_by_its_words(index: Any) -> None:
    """Words find it at once, the vector leg never; once it has one, both do."""
    put(index, chunks("a", vector=None), chunks("b"))
    assert by_words(index, see()) == ["a", "b"]
    assert [hit.chunk.document_id for hit in index.nearest(VECTOR, see(), 10)] == ["b"]
    (waiting,) = index.without_vector(Kind.FLUID, 10)
    assert (waiting.document_id, waiting.vector) == ("a", None)
    index.update(Kind.FLUID, [replace(waiting, vector=VECTOR.tolist())])
    assert found(index, see()) == ["a", "b"]
    assert index.without_vector(Kind.FLUID, 10) == []


def test_those_that_wait_longest_come_first(index: Any) -> None:
    """Of more waiting chunks than asked for, those of the earliest changes are returned, in order."""
    put(index, *(chunks(f"n{number}", vector=None, position=100 - number) for number in range(8)), chunks("done", position=1))
    assert [chunk.document_id for chunk in index.without_vector(Kind.FLUID, 3)] == ["n7", "n6", "n5"]


def test_stored_chunks_come_back_as_they_went_in(index: Any) -> None:
    """Every column survives, vectors and missing times too, and hits carry what an answer quotes."""
    (chunk,) = chunks("a", metadata=["k=v"], expires_at=NOW + DAY / 7, label_key="public", position=2**62 + 1)
    put(index, chunk_group := [chunk])
    stored = index.documents(Kind.FLUID, [chunk.document_key, key("absent")])
    assert stored[key("absent")] == []
    (row,) = stored[chunk.document_key]
    assert {**row.row(), "vector": []} == {**chunk.row(), "vector": []}
    assert row.vector == pytest.approx(chunk_group[0].vector)
    hit = index.lexical("kettle", see(), 1)[0].chunk
    assert {**hit.row(), "search_text": "", "vector": []} == {**chunk.row(), "search_text": "", "vector": []}


def test_rows_read_without_vectors_say_which_wait_for_one(index: Any) -> None:
    """All other columns are there, the searched text included."""
    put(index, chunks("a"), waiting := chunks("b", "two kettles", vector=None))
    stored = index.documents(Kind.FLUID, [key("a"), key("b")], vectors=False)
    assert [stored[key(name)][0].vector is None for name in ("a", "b")] == [False, True]
    assert stored[key("b")][0].row() == waiting[0].row()
    assert stored[key("a")][0].search_text == chunks("a")[0].search_text


def test_many_documents_come_back_at_once(index: Any) -> None:
    """More keys than fit into one request are answered in full."""
    keys = [key(f"n{number}") for number in range(450)]
    put(index, *(chunks(f"n{number}", vector=None) for number in range(450)))
    assert {name: len(stored) for name, stored in index.documents(Kind.FLUID, keys).items()} == dict.fromkeys(keys, 1)
    assert len(index.inventory(Kind.FLUID, "notes")) == 450


def test_a_document_is_replaced_as_a_whole(index: Any) -> None:
    """Chunks that the new text does not have are gone, those of other documents stay."""
    long = "\n\n".join(f"# Part {n}\n\n" + f"kettle number {n} whistles. " * 60 for n in range(4))
    put(index, chunks("a", long), chunks("b"))
    assert len(index.documents(Kind.FLUID, [key("a")])[key("a")]) > 1
    put(index, chunks("a", "one teapot"))
    assert [chunk.text for chunk in index.documents(Kind.FLUID, [key("a")])[key("a")]] == ["one teapot"]
    assert by_words(index, see()) == ["b"]


def test_a_late_change_moves_nothing_back(index: Any) -> None:
    """Of two changes the later in the source wins in any order; a repeat changes nothing, other documents of the group are taken."""
    place = {key("a"): 20, key("b"): 5}
    put(index, chunks("a", "kettle new", position=20), positions=place)
    put(index, chunks("a", "kettle old", position=10), chunks("b", position=5), positions={**place, key("a"): 10})
    assert {hit.chunk.text for hit in index.lexical("kettle", see(), 10)} == {"kettle new", "the kettle whistles"}
    index.replace(Kind.FLUID, {key("a"): []}, {key("a"): 19})
    assert found(index, see()) == ["a", "b"]
    put(index, chunks("a", "kettle copper", position=20), positions=place)
    assert by_words(index, see(), "copper") == ["a"]
    index.replace(Kind.FLUID, {key("a"): []}, {key("a"): 20})
    assert found(index, see()) == ["b"]


def test_a_closed_document_is_not_opened_by_a_late_change(index: Any) -> None:
    """What ended at a place in its source is fenced by that place."""
    put(index, chunks("a", position=10, closed_position=30), positions={key("a"): 30})
    put(index, chunks("a", "kettle late", position=20), positions={key("a"): 20})
    assert found(index, see()) == []
    assert found(index, see(positions={"notes": 25})) == ["a"]


def test_an_update_touches_only_what_is_there(index: Any) -> None:
    """It adds no chunk, and overwrites none of a later change; a vector that comes late is not put on another text."""
    put(index, chunks("a", position=20), positions={key("a"): 20})
    index.update(Kind.FLUID, [*chunks("a", "kettle old", position=10), *chunks("absent", position=10)])
    assert [hit.chunk.text for hit in index.lexical("kettle", see(), 10)] == ["the kettle whistles"]
    index.update(Kind.FLUID, chunks("a", label_key="staff", position=20))
    assert found(index, see()) == []
    index.replace(Kind.FLUID, {key("a"): []}, {key("a"): 30})
    index.update(Kind.FLUID, chunks("a", position=20))
    assert found(index, see()) == []


def test_the_inventory_tells_the_state_of_each_chunk(index: Any) -> None:
    """Hashes, place, and whether it is embedded, closed or withdrawn; only of the collection asked for."""
    put(
        index,
        chunks("a", position=7),
        chunks("b", vector=None),
        chunks("c", closed_position=9, withdrawn_at=NOW),
        chunks("d", collection="other"),
    )
    entries = {entry.document_key: entry for entry in index.inventory(Kind.FLUID, "notes")}
    assert sorted(entries) == [key("a"), key("b"), key("c")]
    (chunk,) = chunks("a")
    a = entries[key("a")]
    assert (a.chunk_id, a.version, a.position, a.content_hash) == (chunk.chunk_id, chunk.version, 7, chunk.content_hash)
    assert (a.metadata_hash, a.access_hash, a.collection) == (chunk.metadata_hash, chunk.access_hash, "notes")
    states = {name[-1]: (entry.embedded, entry.closed, entry.withdrawn) for name, entry in entries.items()}
    assert states == {"a": (True, False, False), "b": (False, False, False), "c": (True, True, True)}
    assert index.inventory(Kind.ANCHORED, "notes") == []


def test_holdings_count_documents_in_force_and_all_chunks(index: Any) -> None:
    """A version that is over counts for what ended it; one that was replaced in its source for its chunks only."""
    put(
        index,
        chunks("a"),
        chunks("b", superseded_at=NOW - DAY * 900),
        chunks("c", closed_position=1),
        chunks("d", collection="other"),
        chunks("e", expires_at=NOW - DAY * 900, superseded_at=NOW - DAY * 901),
        chunks("f", withdrawn_at=NOW, expires_at=NOW - DAY * 900),
    )
    assert index.holdings() == {
        "notes": Holding(documents=1, chunks=5, superseded=1, expired=1, withdrawn=1),
        "other": Holding(documents=1, chunks=1),
    }
    index.replace(Kind.FLUID, {key("a"): [], key("d"): []})
    assert index.holdings() == {"notes": Holding(documents=0, chunks=4, superseded=1, expired=1, withdrawn=1)}


@pytest.mark.parametrize(
    "query",
    ["", "***", '"unclosed AND (', "title:kettle", "what's + the -kettle", "kettle " * 3000, "水" * 5000, "☀ kettle " * 2000, "a1 " * 6666],
    ids=["empty", "stars", "unclosed", "field", "signs", "letter", "ideographs", "symbols", "codes"],
)
def test_no_query_is_a_syntax_error(index: Any, query: str) -> None:
    """Whatever a person types, and however much, is words, not operators."""
    put(index, chunks("a"))
    assert isinstance(index.lexical(query, see(), 10), list)


def test_another_encoder_has_no_index(index: Any, store: Any) -> None:
    """Opening for another encoder fails and says which encoders there are."""
    with pytest.raises(IndexMissingError, match=store.encoder) as error:
        store.open("minilm-absent")
    assert store.encoder in error.value.found


def test_encoders_do_not_share_an_index(index: Any, store: Any) -> None:
    """What is written for one encoder is not found through another, and both stay open side by side."""
    other = store.create(f"{store.encoder}b")
    put(index, chunks("a"))
    put(other, chunks("b"))
    assert (found(index, see()), found(store.open(f"{store.encoder}b"), see())) == (["a"], ["b"])


def test_every_table_is_listed_searched_for_a_document_and_dropped(store: Any) -> None:
    """Whatever encoder made it: a table says what it holds by name, not what was deleted from it, and is gone once dropped."""
    other = f"{store.encoder}-b"
    for encoder in (store.encoder, other):
        put(store.create(encoder), chunks("a"), chunks("b", tenant="acme"))
    store.create(store.encoder).replace(Kind.FLUID, {key("a"): []})
    tables = store.tables
    names = sorted(tables.of(store.encoder) | tables.of(other))

    assert [name for name in tables.names() if tables.encoder(name) in {store.encoder, other}] == names
    assert [tables.encoder(name) for name in names if tables.holds(name, key("a"))] == [other]
    assert sum(tables.holds(name, key("c")) for name in names) == 0
    for name in tables.of(other):
        tables.drop(name)
        tables.drop(name)
    assert not tables.of(other) & set(tables.names())
    assert found(store.open(store.encoder), see()) == ["b"]
