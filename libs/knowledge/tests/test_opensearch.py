"""What only OpenSearch has: users, aliases, rows of deletions, a node that goes away and comes back."""

import stat
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from index_notes import VECTOR, by_words, chunks, found, key, put, see

from chassis.errors import FailedPreconditionError, UnavailableError
from knowledge import backends, opensearch_queries
from knowledge.backends import BackendSettings
from knowledge.opensearch import OpenSearchIndex
from knowledge.opensearch_client import Connection, OpenSearchSettings
from knowledge.opensearch_provisioning import setup
from knowledge.opensearch_templates import write_alias
from knowledge.schema import Chunk, Kind, label_key

ENCODER = "minilm-os"


@pytest.fixture
def index(cluster: Any, services: dict[str, Connection]) -> Any:
    """An empty index, open for writing as ingestor."""
    yield OpenSearchIndex.create(services["ingestor"], ENCODER)
    cluster.admin.call("DELETE", f"/strata-*-{ENCODER}*")


def _patiently(ask: Callable[[], Any]) -> Any:
    """Return the answer of a node that is still coming up."""
    deadline = time.monotonic() + 300
    while True:
        try:
            return ask()
        except UnavailableError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def test_the_reader_may_not_write(index: OpenSearchIndex, services: dict[str, Connection]) -> None:
    """Retriever's user is refused every write with 403, and what it tried is not there; nor may either user see other indices."""
    reader = OpenSearchIndex.open(services["retriever"], ENCODER)
    with pytest.raises(FailedPreconditionError, match=r"strata_retriever.*403"):
        put(reader, chunks("a"))
    for method, path, body in (
        ("PUT", f"/{write_alias(Kind.FLUID, ENCODER)}/_doc/x", {"position": 1}),
        ("DELETE", f"/{write_alias(Kind.FLUID, ENCODER)}", None),
        ("PUT", "/strata-fluid-3-more", None),
        ("GET", "/_cat/indices", None),
        ("GET", "/elsewhere/_search", None),
    ):
        with pytest.raises(FailedPreconditionError, match="403"):
            services["retriever"].call(method, path, body)
    with pytest.raises(FailedPreconditionError, match="403"):
        services["ingestor"].call("PUT", "/elsewhere/_doc/1", {"a": 1})
    with pytest.raises(FailedPreconditionError, match="403"):
        services["ingestor"].call("PUT", "/_plugins/_security/api/roles/strata_more", {})
    assert found(reader, see()) == []


def test_setting_up_twice_changes_nothing(cluster: Any, index: OpenSearchIndex, services: dict[str, Connection]) -> None:
    """Passwords stay, in files only their owner reads; connections that were open go on, and data is untouched."""
    put(index, chunks("a"))
    credentials = cluster.state_dir / "credentials"
    files = [credentials / name / "opensearch.password" for name in ("ingestor", "retriever")]
    before = [file.read_text() for file in files]
    done = setup(cluster.admin, credentials, ENCODER)
    assert [file.read_text() for file in files] == before
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600, 0o600]
    assert sorted(done.users) == ["strata_ingestor", "strata_retriever"]
    assert found(OpenSearchIndex.open(services["retriever"], ENCODER), see()) == ["a"]


def test_a_change_that_comes_after_the_deletion_is_late(index: OpenSearchIndex, services: dict[str, Connection]) -> None:
    """What was deleted at a place is not brought back by a change before it, with other chunks or from another writer either."""
    place = {key("a"): 20}
    put(index, chunks("a", position=10), positions={key("a"): 10})
    index.replace(Kind.FLUID, {key("a"): []}, place)
    index.replace(Kind.FLUID, {key("never"): []}, {key("never"): 20})
    again = OpenSearchIndex.create(services["ingestor"], ENCODER)
    for writer in (index, again):
        put(writer, chunks("a", position=15, version="9"), chunks("never", position=15), positions={key("a"): 15, key("never"): 15})
        assert by_words(index, see()) == []
    assert index.documents(Kind.FLUID, [key("a"), key("never")]) == {key("a"): [], key("never"): []}
    put(again, chunks("a", position=30), positions={key("a"): 30})
    assert found(index, see()) == ["a"]
    index.tidy()
    assert found(index, see()) == ["a"]


def test_forgetting_a_deletion_leaves_younger_ones(index: OpenSearchIndex) -> None:
    """Only deletions from before the moment are forgotten; then a change counts as new."""
    index.replace(Kind.FLUID, {key("a"): []}, {key("a"): 20})
    writer = index._writers[Kind.FLUID]
    for moment, expected in ((time.time_ns() // 1000 - 10_000_000, []), (time.time_ns() // 1000 + 10_000_000, ["a"])):
        writer.forget_deletions(moment)
        put(index, chunks("a", position=15), positions={key("a"): 15})
        assert by_words(index, see()) == expected


def test_writers_race_and_the_later_change_stays(index: OpenSearchIndex, services: dict[str, Connection]) -> None:
    """Of many changes written at once by two writers, each document ends at its latest, deletions included."""
    writers = [index, OpenSearchIndex.create(services["ingestor"], ENCODER)]

    def write(number: int) -> None:
        name, place = f"n{number % 5}", 1 + number // 5
        documents = {key(name): [] if place == 8 and name == "n0" else chunks(name, f"kettle v{place}", position=place, vector=None)}
        writers[number % 2].replace(Kind.FLUID, documents, {key(name): place})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, (number * 7 % 40 for number in range(40))))
    stored = index.documents(Kind.FLUID, [key(f"n{n}") for n in range(5)])
    assert {name: [chunk.text for chunk in rows] for name, rows in stored.items()} == {
        key(f"n{n}"): [] if n == 0 else ["kettle v8"] for n in range(5)
    }


def test_a_write_asks_nothing_that_the_read_before_it_told(index: OpenSearchIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows, places and deletions are taken from the read before a write, and after that write from no read."""
    searches, search = [], Connection.search

    def counted(connection: Connection, target: str, body: dict[str, Any], **options: Any) -> Any:
        searches.append(target)
        return search(connection, target, body, **options)

    monkeypatch.setattr(Connection, "search", counted)

    def long(text: str, position: int) -> list[Chunk]:
        (chunk,) = chunks("a", text, position=position)
        return [chunk, replace(chunk, chunk_id=f"{chunk.chunk_id}1")]

    put(index, long("kettle v1", 10))
    index.replace(Kind.FLUID, {key("gone"): []}, {key("gone"): 20})
    names = [key("a"), key("gone"), key("new")]
    index.documents(Kind.FLUID, names, vectors=False)
    index.documents(Kind.FLUID, [key("a")])
    searches.clear()
    places = {key("a"): 15, key("gone"): 15, key("new"): 15}
    put(index, chunks("a", "kettle v2", position=15), chunks("gone", position=15), chunks("new", position=15), positions=places)
    assert not searches
    assert found(index, see()) == ["a", "new"]
    (after,) = index.documents(Kind.FLUID, [key("a")], vectors=False)[key("a")]
    searches.clear()
    index.update(Kind.FLUID, [replace(after, text="kettle v3", vector=VECTOR.tolist())])
    assert not searches
    put(index, long("kettle v4", 30))
    put(index, chunks("a", "kettle v5", position=40))
    assert searches
    assert [chunk.text for chunk in index.documents(Kind.FLUID, [key("a")])[key("a")]] == ["kettle v5"]


def test_nothing_is_seen_before_all_of_a_commit_is(index: OpenSearchIndex, services: dict[str, Connection]) -> None:
    """While large commits are written, every search sees one of them whole."""
    reader, seen, done = OpenSearchIndex.open(services["retriever"], ENCODER), [], []

    def watch() -> None:
        while not done:
            texts = [hit.chunk.text for hit in reader.lexical("kettle", see(), 1000)]
            seen.append((len(texts), len(set(texts))))

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        for number in range(4):
            put(index, *(chunks(f"n{n}", f"kettle v{number}", vector=None) for n in range(300)))
        done.append(True)
        watching.result()
    assert set(seen) <= {(0, 0), (300, 1)}
    assert seen[-1] == (300, 1)


def test_a_group_with_a_row_that_is_refused_is_an_error(index: OpenSearchIndex) -> None:
    """A vector of another length is refused as the caller's fault, and nothing of its group is shown as done."""
    before = index.versions()
    with pytest.raises(Exception, match="vector") as error:
        put(index, chunks("a"), chunks("b", vector=[1.0, 0.0]))
    assert getattr(error.value, "retryable", None) is False
    assert (index.versions(), found(index, see())) == (before, [])


def test_both_legs_by_one_request_find_what_each_finds_alone(index: OpenSearchIndex, services: dict[str, Connection]) -> None:
    """The same hits with the same scores, a query of too many words included; an index that is gone is an error, not an empty leg."""
    put(index, *(chunks(f"n{n}", "a kettle" + " whistles" * n) for n in range(5)))
    reader = OpenSearchIndex.open(services["retriever"], ENCODER)
    for query in ("kettle whistles", "whistles " * 3000, "水" * 5000, ""):
        legs = reader.lexical(query, see(), 3), reader.nearest(VECTOR, see(), 3)
        pair = reader.both(query, VECTOR, see(), 3)
        assert [[(hit.chunk.row(), hit.score) for hit in leg] for leg in pair] == [[(h.chunk.row(), h.score) for h in leg] for leg in legs]
    index._connection.call("DELETE", f"/strata-*-{ENCODER}-000001")
    with pytest.raises(UnavailableError):
        reader.both("kettle", VECTOR, see(), 3)


def test_of_equal_chunks_the_first_by_name_are_found(index: OpenSearchIndex) -> None:
    """Where all have the words alike, which of them a short list holds does not depend on when they were written."""
    for name in ("e", 'b"q', "d", "a", "f" * 300, "c\\n"):
        put(index, chunks(name))
    expected = sorted(chunk.chunk_id for name in ("e", 'b"q', "d", "a", "f" * 300, "c\\n") for chunk in chunks(name))
    words, _ = index.both("kettle", VECTOR, see(), 3)
    for leg, limit in ((words, 3), (index.lexical("kettle", see(), 3), 3), (index.nearest(VECTOR, see(), 10), 10)):
        assert [hit.chunk.chunk_id for hit in leg] == expected[:limit]


def test_labels_beyond_counting_are_filtered_all_the_same(index: OpenSearchIndex) -> None:
    """A caller with many labels sees what fewer would, and what needs many of them."""
    many = [f"label{n}" for n in range(40)]
    put(
        index,
        chunks("open"),
        chunks("few", label_key="label3"),
        chunks("all", label_key=label_key(tuple(many))),
        chunks("not", label_key="x"),
    )
    assert found(index, see(labels=frozenset(many))) == ["all", "few", "open"]
    assert found(index, see(labels=frozenset(many[:4]))) == ["few", "open"]


def test_long_names_are_no_error(index: OpenSearchIndex) -> None:
    """A document whose id is longer than a row's name may be is stored, replaced and deleted like any other."""
    name = "ü" * 400
    put(index, chunks(name), chunks(name + "x"))
    assert found(index, see()) == [name, name + "x"]
    index.update(Kind.FLUID, chunks(name, label_key="staff"))
    index.replace(Kind.FLUID, {key(name + "x"): []})
    assert (found(index, see()), len(index.inventory(Kind.FLUID, "notes"))) == ([], 1)


def test_every_column_has_a_place(cluster: Any, index: OpenSearchIndex) -> None:
    """The mapping is strict and knows every column of a row; a row with another one is refused."""
    (content,) = cluster.admin.call("GET", f"/{write_alias(Kind.FLUID, ENCODER)}/_mapping").values()
    assert content["mappings"]["dynamic"] == "strict"
    assert set(opensearch_queries.source(chunks("a")[0])) <= set(content["mappings"]["properties"])


def test_without_setting_up_there_is_a_clear_error(cluster: Any, tmp_path: Path) -> None:
    """A missing password, a wrong one, a wrong authority and a closed port each say what is wrong."""
    settings = BackendSettings(backend="opensearch", url=cluster.node.url)
    with pytest.raises(FailedPreconditionError, match="password"):
        backends.open_index(settings, tmp_path, "retriever", ENCODER)
    (tmp_path / "wrong").write_text("wrong")
    options = {"ca_file": cluster.node.ca_file, "user": "strata_retriever", "password_file": tmp_path / "wrong"}
    with pytest.raises(FailedPreconditionError, match="401"):
        # To compare a password takes the processor's time, on purpose.
        Connection(OpenSearchSettings(url=cluster.node.url, **options)).call("GET", "/", seconds=120)
    with pytest.raises(FailedPreconditionError, match="authority"):
        Connection(OpenSearchSettings(url=cluster.node.url, **(options | {"ca_file": tmp_path / "absent"})))
    with pytest.raises(FailedPreconditionError, match="certificate"):
        Connection(OpenSearchSettings(url=cluster.node.url, **(options | {"ca_file": None}))).call("GET", "/")
    with pytest.raises(UnavailableError, match="does not answer"):
        Connection(OpenSearchSettings(url="https://127.0.0.1:1", **options)).call("GET", "/")


def test_the_factory_opens_what_the_settings_name(cluster: Any, index: OpenSearchIndex, tmp_path: Path) -> None:
    """One setting decides the engine; what ingestor writes through it, retriever reads through it."""
    for settings, state_dir in ((cluster.settings, cluster.state_dir), (BackendSettings(), tmp_path)):
        put(backends.create(settings, state_dir, "ingestor", ENCODER), chunks("a"))
        assert found(backends.open_index(settings, state_dir, "retriever", ENCODER), see()) == ["a"]


def test_a_node_that_is_killed_is_unavailable_and_comes_back(cluster: Any, index: OpenSearchIndex, services: Any) -> None:
    """Requests fail soon and as worth repeating; after the restart the same objects work, and everything committed is there."""
    if not cluster.node.ours:
        pytest.skip("the node is not ours to kill")
    reader = OpenSearchIndex.open(services["retriever"], ENCODER)
    put(index, chunks("a", position=5), positions={key("a"): 5})
    index.replace(Kind.FLUID, {key("b"): []}, {key("b"): 9})
    version = index.versions()
    cluster.node.kill()
    started = time.monotonic()
    for attempt in (
        lambda: reader.lexical("kettle", see(), 1),
        lambda: reader.nearest(VECTOR, see(), 1),
        reader.versions,
        lambda: put(index, chunks("c", position=6), positions={key("c"): 6}),
    ):
        with pytest.raises(UnavailableError) as error:
            attempt()
        assert error.value.retryable
    assert time.monotonic() - started < 180
    cluster.node.start()
    assert _patiently(lambda: found(reader, see())) == ["a"]
    assert reader.versions() == version
    put(index, chunks("c", position=6), chunks("b", position=6), positions={key("c"): 6, key("b"): 6})
    assert found(reader, see()) == ["a", "c"]
    assert index.versions()["fluid"] > version["fluid"]
