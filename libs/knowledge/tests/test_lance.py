"""What only the embedded index has: tables in a folder that may be half made."""

from dataclasses import asdict
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pytest
from index_notes import DAY, NOW, by_words, chunks, found, put, see

from knowledge.index import IndexMissingError
from knowledge.lance import LanceIndex
from knowledge.lance_rows import SCHEMA, table_name
from knowledge.schema import COLUMNS, Kind


def test_an_index_that_is_being_made_is_not_there_yet(tmp_path: Path) -> None:
    """A reader that comes too early is told so, and the writer completes what a crash left half made."""
    for kind in Kind:
        (tmp_path / f"{table_name(kind, 'enc')}.lance").mkdir()
    with pytest.raises(IndexMissingError):
        LanceIndex.open(tmp_path, "enc")
    database = lancedb.connect(tmp_path)
    database.create_table(table_name(Kind.FLUID, "enc"), schema=SCHEMA, exist_ok=True)
    LanceIndex.create(tmp_path, "enc")
    assert found(LanceIndex.open(tmp_path, "enc"), see()) == []


def test_fragments_grow_with_commits_and_are_joined(tmp_path: Path) -> None:
    """Every commit leaves a piece; tidying makes few of many."""
    index = LanceIndex.create(tmp_path, "enc")
    for number in range(5):
        put(index, chunks(f"d{number}"))
    before = index.fragments()["fluid"]
    index.tidy()
    assert (before, index.fragments()["fluid"]) == (5, 1)


def test_a_large_table_is_searched_by_structures_that_find_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a size, columns of the predicate and vectors are indexed in the background; what is found, hidden and scored stays."""
    monkeypatch.setattr("knowledge.lance_structures.LARGE", 300)
    index = LanceIndex.create(tmp_path, "enc")
    generator = np.random.default_rng(5)
    vectors = generator.standard_normal((400, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = ("", "public", "staff")
    put(index, *(chunks(f"n{n:03}", vector=vectors[n].tolist(), label_key=labels[n % 3]) for n in range(400)), chunks("waits", vector=None))
    before = [(hit.chunk.chunk_id, hit.score) for hit in index.nearest(vectors[0], see(), 50)]
    index.tidy()
    for structures in index._structures.values():
        structures.wait(60)
    columns = {column for listed in index._tables[Kind.FLUID].list_indices() for column in listed.columns}
    assert columns >= {"vector", "collection", "scope", "effective_from", "over_at"}
    reader = LanceIndex.open(tmp_path, "enc", resident=0)
    after = [(hit.chunk.chunk_id, hit.score) for hit in reader.nearest(vectors[0], see(), 50)]
    assert after[:40] == [(name, pytest.approx(score, abs=1e-5)) for name, score in before[:40]]
    assert len({name for name, _ in after} & {name for name, _ in before}) >= 48
    put(index, chunks("n000", vector=vectors[0].tolist(), label_key="staff"), chunks("new", vector=vectors[0].tolist()))
    found_now = [hit.chunk.document_id for hit in index.nearest(vectors[0], see(), 50)]
    assert found_now[0] == "new"
    assert "n000" not in found_now
    index.tidy()
    assert [hit.chunk.document_id for hit in index.nearest(vectors[0], see(), 50)][:40] == found_now[:40]


def test_tables_of_the_version_before_are_copied(tmp_path: Path) -> None:
    """An index with a column for every field is opened as it was: chunks, times, labels and vectors; the old table is gone."""
    waiting = chunks("waits", vector=None, superseded_at=NOW + DAY)[0]
    stored = [chunks("seen", label_key="public")[0], chunks("hidden", label_key="staff")[0], chunks("over", expires_at=NOW)[0], waiting]
    rows = [{name: getattr(chunk, name) for name in COLUMNS} for chunk in stored]
    database, old = lancedb.connect(tmp_path), f"{Kind.FLUID}-2_enc"
    types = {name: SCHEMA.field(name).type for name in COLUMNS if name in SCHEMA.names} | {"start": pa.int64(), "end": pa.int64()}
    content = pa.Table.from_pylist(rows, schema=pa.schema([(name, types.get(name, pa.string())) for name in COLUMNS]))
    database.create_table(old, content, on_bad_vectors="null")
    index = LanceIndex.create(tmp_path, "enc")
    assert by_words(index, see()) == ["seen", "waits"]
    (copied,) = index.documents(Kind.FLUID, [waiting.document_key])[waiting.document_key]
    assert asdict(copied) == asdict(waiting)
    assert not (tmp_path / f"{old}.lance").exists()
