"""Another encoder's index is built beside the one in use and takes its place as one step."""

import datetime as dt
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from chassis.errors import FailedPreconditionError
from encoders import Encoder
from encoders.encoder import Vectors
from ingestor.late_vectors import complete
from ingestor.ledger import Ledger
from ingestor.library import Library
from ingestor.reembedding import Reembedding
from knowledge.generations import Generation, Generations
from knowledge.lance import LanceIndex
from knowledge.schema import Document, Kind
from knowledge.visibility import Visibility

NOW = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
SEEN = Visibility("acme", frozenset(), ("rules",), NOW)
TOPICS = ("parking", "bicycles", "visitors", "laundry", "gardens", "heating", "deliveries", "roofs")


class Turned:
    """The vectors of an encoder, turned: another space with the same neighbours."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.texts = 0

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors with their components in another order."""
        self.texts += len(texts)
        return np.roll(self._encoder.encode(texts), 100, axis=1)


class Blind:
    """An encoder that cannot tell texts apart."""

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return the same vector for every text."""
        return np.tile(np.eye(1, 384, dtype=np.float32), (len(texts), 1))


def _document(number: int, version: int = 1) -> Document:
    topic = TOPICS[number % len(TOPICS)]
    text = f"Rule {number} is about {topic}. Whoever looks after {topic} on floor {number} writes down number {number * 37} at the gate."
    date = NOW - dt.timedelta(days=100 - version)
    return Document("rules", Kind.ANCHORED, f"rule-{number}", topic, text, version=str(version), effective_from=date)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    """Return the encoder, loaded once."""
    return Encoder.load()


@pytest.fixture
def library(tmp_path: Path, encoder: Encoder) -> Library:
    """Return a library of forty documents."""
    library = Library(LanceIndex.create(tmp_path, "one"), encoder, Ledger(tmp_path / "ledger.db"), longest_text_bytes=10_000)
    library.put([_document(number) for number in range(40)])
    return library


def test_every_version_arrives_and_only_once(tmp_path: Path, library: Library, encoder: Encoder) -> None:
    """The new index holds what the old one holds, and building it again embeds nothing."""
    library.put([replace(_document(3, 2), text="Rule 3 is about bicycles and says something else now.")])
    source, target = LanceIndex.create(tmp_path, "one"), LanceIndex.create(tmp_path, "two")
    generations, other = Generations(tmp_path), Turned(encoder)
    generations.begin(Generation("one"))

    report = Reembedding(source, target, encoder, other).run(threading.RLock(), lambda: _switch(generations, "two"), ["rules"])

    key = _document(3).key
    assert sorted(chunk.version for chunk in target.documents(Kind.ANCHORED, [key])[key]) == ["1", "2"]
    assert report.embedded == 41
    state = generations.read()
    assert state is not None
    assert (state.serving, state.previous) == (Generation("two"), Generation("one"))
    again = Reembedding(source, target, encoder, other).run(threading.RLock(), lambda: None, ["rules"])
    assert (again.documents, again.embedded) == (0, 0)


def test_it_ends_where_rows_change_as_fast_as_it_copies(tmp_path: Path, library: Library, encoder: Encoder) -> None:
    """As many documents are written during each pass as it brings: what is left waits for the switch and arrives with it."""
    source, target = LanceIndex.create(tmp_path, "one"), LanceIndex.create(tmp_path, "two")
    numbers = iter(range(1000, 10_000))

    class Chased(Turned):
        """Whenever it embeds for a pass, somebody writes as many documents."""

        def encode(self, texts: Sequence[str]) -> Vectors:
            if "Rule" in texts[0]:
                library.put([_document(next(numbers)) for _ in texts])
            return super().encode(texts)

    report = Reembedding(source, target, encoder, Chased(encoder)).run(threading.RLock(), lambda: None, ["rules"])

    assert report.passes == 3
    assert report.documents == 120
    assert target.holdings()["rules"].documents == 120


def test_what_is_written_while_it_is_built_arrives_too(tmp_path: Path, library: Library, encoder: Encoder) -> None:
    """Puts and withdrawals between the passes, and until the switch, are in the index that is searched afterwards."""
    source, target = LanceIndex.create(tmp_path, "one"), LanceIndex.create(tmp_path, "two")

    class Busy(Turned):
        """Somebody else writes whenever it embeds."""

        def encode(self, texts: Sequence[str]) -> Vectors:
            if self.texts == 0:
                library.put([_document(100)])
                library.remove(Kind.ANCHORED, "rules", "rule-5", version="1", reason="wrong")
            return super().encode(texts)

    Reembedding(source, target, encoder, Busy(encoder)).run(threading.RLock(), lambda: None, ["rules"])

    late, gone = _document(100).key, _document(5).key
    stored = target.documents(Kind.ANCHORED, [late, gone])
    assert len(stored[late]) == 1
    assert stored[gone][0].withdrawn_at is not None


def test_readers_never_see_fewer_documents_nor_two_spaces(tmp_path: Path, library: Library, encoder: Encoder) -> None:
    """At every moment the generation that is served holds all documents, all of them with vectors of its encoder."""
    source, target = LanceIndex.create(tmp_path, "one"), LanceIndex.create(tmp_path, "two")
    generations, seen, over = Generations(tmp_path), set[tuple[str, int]](), threading.Event()
    generations.begin(Generation("one"))

    def read() -> None:
        while not over.is_set():
            state = generations.read()
            assert state is not None
            entries = LanceIndex.open(tmp_path, state.serving.encoder).inventory(Kind.ANCHORED, "rules")
            seen.add((state.serving.encoder, sum(entry.embedded for entry in entries)))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        Reembedding(source, target, encoder, Turned(encoder)).run(threading.RLock(), lambda: _switch(generations, "two"), ["rules"])
    finally:
        over.set()
        reader.join()

    assert seen <= {("one", 40), ("two", 40)}
    assert library is not None


def test_an_encoder_that_finds_less_is_not_switched_to(tmp_path: Path, library: Library, encoder: Encoder) -> None:
    """The gate refuses it with a stable code and what is served stays."""
    source, target = LanceIndex.create(tmp_path, "one"), LanceIndex.create(tmp_path, "blind")
    generations = Generations(tmp_path)
    generations.begin(Generation("one"))

    with pytest.raises(FailedPreconditionError) as caught:
        Reembedding(source, target, encoder, Blind()).run(threading.RLock(), lambda: _switch(generations, "blind"), ["rules"])

    assert caught.value.code == "retrieval_gate_failed"
    state = generations.read()
    assert state is not None
    assert state.serving == Generation("one")
    assert library is not None


def test_nobody_writes_during_the_switch(tmp_path: Path, library: Library, encoder: Encoder) -> None:
    """The lock of the writers is held while the switch is made."""
    source, target = LanceIndex.create(tmp_path, "one"), LanceIndex.create(tmp_path, "two")
    held, at_switch = False, list[bool]()

    @contextmanager
    def writing() -> Iterator[None]:
        nonlocal held
        held = True
        yield
        held = False

    Reembedding(source, target, encoder, Turned(encoder)).run(writing(), lambda: at_switch.append(held), ["rules"])

    assert at_switch == [True]
    assert library is not None


def test_the_switch_keeps_writers_away_from_no_encoder(tmp_path: Path, library: Library, encoder: Encoder) -> None:
    """What was written at the last moment is switched to without a vector, found by its words, and embedded right after."""
    source, target = LanceIndex.create(tmp_path, "one"), LanceIndex.create(tmp_path, "two")
    held, found = threading.Event(), list[tuple[int, int]]()

    class Late(Turned):
        """Must not be asked while others wait."""

        def encode(self, texts: Sequence[str]) -> Vectors:
            assert not held.is_set()
            return super().encode(texts)

    class Writing:
        """A lock that comes just after somebody's write."""

        def __enter__(self) -> None:
            if not found:
                library.put([_document(100)])
            held.set()

        def __exit__(self, *_: object) -> None:
            held.clear()

    def switch() -> None:
        words = target.lexical("number 3700", SEEN, 5)
        found.append((len(target.without_vector(Kind.ANCHORED, 5)), sum(hit.chunk.document_id == "rule-100" for hit in words)))

    Reembedding(source, target, encoder, Late(encoder)).run(Writing(), switch, ["rules"])

    assert found == [(1, 1)]
    assert target.without_vector(Kind.ANCHORED, 5) == []
    assert target.documents(Kind.ANCHORED, [_document(100).key])[_document(100).key][0].vector


def test_what_a_crash_left_without_a_vector_is_embedded(library: Library, tmp_path: Path) -> None:
    """A process that ended right after a switch left texts without vectors; the next one gives them theirs."""
    index, key = LanceIndex.create(tmp_path, "one"), _document(3).key
    (chunk,) = index.documents(Kind.ANCHORED, [key])[key]
    index.replace(Kind.ANCHORED, {key: [replace(chunk, vector=None)]})
    assert complete(library, Kind.ANCHORED) == 1
    assert index.documents(Kind.ANCHORED, [key])[key][0].vector == pytest.approx(chunk.vector)
    assert complete(library, Kind.ANCHORED) == 0


def _switch(generations: Generations, encoder: str) -> None:
    generations.switch(Generation(encoder))


def test_the_gate_asks_as_those_who_may_see_what_it_asks_about(tmp_path: Path, encoder: Encoder) -> None:
    """Documents of one tenant under labels that no collection declares decide about an encoder; with nothing to ask it is refused."""
    source, ledger = LanceIndex.create(tmp_path, "one"), Ledger(tmp_path / "ledger.db")
    library = Library(source, encoder, ledger, longest_text_bytes=10_000)
    hidden = [replace(_document(number), tenant="acme", labels=("night_shift", "staff")) for number in range(40)]
    ends = NOW - dt.timedelta(days=1)
    library.put([*hidden, *(replace(_document(number), document_id=f"old-{number}", expires_at=ends) for number in range(40))])

    with pytest.raises(FailedPreconditionError) as blind:
        Reembedding(source, LanceIndex.create(tmp_path, "blind"), encoder, Blind()).run(threading.RLock(), lambda: None, ["rules"])
    report = Reembedding(source, LanceIndex.create(tmp_path, "two"), encoder, Turned(encoder)).run(
        threading.RLock(), lambda: None, ["rules"]
    )
    with pytest.raises(FailedPreconditionError) as unasked:
        Reembedding(source, LanceIndex.create(tmp_path, "three"), encoder, Turned(encoder)).run(threading.RLock(), lambda: None, ["other"])

    assert [caught.value.code for caught in (blind, unasked)] == ["retrieval_gate_failed"] * 2
    assert report.recall_before == report.recall_after > 0.9
