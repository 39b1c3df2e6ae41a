"""What a reader of an embedded index keeps in memory says what the engine itself would, from the next query on."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from index_notes import DAY, NOW, VECTOR, by_words, chunks, key, put, see

from encoders.encoder import DIMENSIONS, Vectors
from knowledge.index import Hit
from knowledge.lance import LanceIndex
from knowledge.schema import Chunk, Kind
from knowledge.visibility import Visibility

_WORDS = ("kettle", "whistles", "lamp", "desk", "oak", "brass")
_TENANTS = ("", "acme", "rival")
_ASKS = (
    see(),
    see(labels=frozenset({"public", "staff"})),
    see(labels=frozenset()),
    see(tenant="rival"),
    see(at=NOW - 3 * DAY),
    see(filters={"shelf": "1"}),
    see(version="2"),
    see(positions={"notes": 5}),
    see(collections=("other",)),
)


def said(hits: list[Hit]) -> list[tuple[str, object]]:
    """Return the names of hits with their scores."""
    return [(hit.chunk.chunk_id, pytest.approx(hit.score, abs=1e-5)) for hit in hits]


def changed(random_: random.Random, vectors: Vectors, number: int) -> list[Chunk]:
    """Return some note in some state."""
    tenant = random_.choice(_TENANTS)
    fields: dict[str, Any] = {
        "vector": random_.choice((None, vectors[3 * number + _TENANTS.index(tenant)].tolist())),
        "label_key": random_.choice(("", "public", "staff", "public staff")),
        "tenant": tenant,
        "version": random_.choice(("", "2")),
        "metadata": random_.choice(([], ["shelf=1"], ["colour=red", "shelf=1"])),
        "expires_at": random_.choice((None, NOW - DAY, NOW + DAY)),
        "effective_from": NOW - random_.choice((1, 5, -2)) * DAY,
        "withdrawn_at": random_.choice((None, None, NOW)),
    }
    return chunks(f"d{number}", " ".join(random_.choices(_WORDS, k=6)) + f" n{number}", **fields)


def test_memory_and_engine_agree_through_all_changes(tmp_path: Path) -> None:
    """Whatever is written, deleted, embedded late or compacted, both answer every kind of caller alike in both legs."""
    random_, vectors = random.Random(3), np.random.default_rng(3).standard_normal((360, DIMENSIONS)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    writer = LanceIndex.create(tmp_path, "enc")
    reader, plain = LanceIndex.open(tmp_path, "enc"), LanceIndex.open(tmp_path, "enc", resident=0)
    for step in range(6):
        put(writer, *(changed(random_, vectors, number) for number in random_.sample(range(120), 40)), kind=random_.choice(list(Kind)))
        writer.replace(Kind.FLUID, {key(f"d{number}"): [] for number in random_.sample(range(120), 5)})
        writer.update(Kind.FLUID, writer.documents(Kind.FLUID, [key("d7")])[key("d7")])
        if step % 3 == 2:
            writer.tidy()
        for who in random_.sample(_ASKS, 4):
            assert said(reader.nearest(vectors[step], who, 60)) == said(plain.nearest(vectors[step], who, 60))
            assert said(reader.lexical("kettle brass", who, 200)) == said(plain.lexical("kettle brass", who, 200))
    assert reader.nearest(vectors[0], see(), 60)


def test_what_is_deleted_is_in_no_memory(tmp_path: Path) -> None:
    """A query after a deletion leaves nothing of the document behind in the reader."""
    writer = LanceIndex.create(tmp_path, "enc")
    put(writer, chunks("a", "the kettle is secret"), chunks("b"))
    reader = LanceIndex.open(tmp_path, "enc")
    assert by_words(reader, see()) == ["a", "b"]
    writer.replace(Kind.FLUID, {key("a"): []})
    assert by_words(reader, see()) == ["b"]
    rows = reader._residents[Kind.FLUID].look()
    assert rows is not None
    assert [place for place, payload in enumerate(rows.store.payloads) if payload and b"secret" in payload] == []
    assert [bool(row.any()) for row in rows.store.matrix[: rows.count]] == [False, True]


def test_a_large_table_is_read_beside_the_queries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine answers until everything is in memory, and again once there is more than may be held."""
    monkeypatch.setattr("knowledge.lance_resident._SMALL", 1)
    writer = LanceIndex.create(tmp_path, "enc")
    put(writer, *(chunks(f"n{number}") for number in range(5)))
    reader = LanceIndex.open(tmp_path, "enc", resident=6)
    resident = reader._residents[Kind.FLUID]
    assert len(reader.nearest(VECTOR, see(), 10)) == 5
    resident.wait(180)
    assert resident.look() is not None
    put(writer, chunks("new"))
    assert len(reader.nearest(VECTOR, see(), 10)) == 6
    put(writer, chunks("one too many"))
    assert resident.look() is None
    assert len(reader.nearest(VECTOR, see(), 10)) == 7


def test_a_table_that_was_made_anew_is_read_anew(tmp_path: Path) -> None:
    """Row numbers of another table never stand for its rows."""
    who: Visibility = see()
    put(LanceIndex.create(tmp_path, "enc"), chunks("old"), chunks("older"))
    reader = LanceIndex.open(tmp_path, "enc")
    assert by_words(reader, who) == ["old", "older"]
    reader._database.drop_table(reader._tables[Kind.FLUID].name)
    put(LanceIndex.create(tmp_path, "enc"), chunks("fresh"))
    assert by_words(LanceIndex.open(tmp_path, "enc"), who) == ["fresh"]
