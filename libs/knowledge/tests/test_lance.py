"""What only the embedded index has: tables in a folder that may be half made."""

from pathlib import Path

import lancedb
import pytest
from index_notes import chunks, found, put, see

from knowledge.index import IndexMissingError
from knowledge.lance import LanceIndex
from knowledge.schema import SCHEMA, Kind


def test_an_index_that_is_being_made_is_not_there_yet(tmp_path: Path) -> None:
    """A reader that comes too early is told so, and the writer completes what a crash left half made."""
    for kind in Kind:
        (tmp_path / f"{kind}_enc.lance").mkdir()
    with pytest.raises(IndexMissingError):
        LanceIndex.open(tmp_path, "enc")
    database = lancedb.connect(tmp_path)
    database.create_table("fluid_enc", schema=SCHEMA, exist_ok=True)
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
