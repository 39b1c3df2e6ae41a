"""The tree as files."""

import random
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlog.tiles import TILES, MissingTileError, TileReader, TileWriter, parse_tile_path, tile_path
from tlog.tree import CompactRange, consistency_proof, inclusion_proof, leaf_hash, verify_consistency, verify_inclusion

COUNT = 70_000
LEAVES = [leaf_hash(n.to_bytes(4, "big")) for n in range(COUNT)]


def _root(size: int) -> bytes:
    grown = CompactRange()
    for leaf in LEAVES[:size]:
        grown.append(leaf)
    return grown.root()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiles of 70,000 leaves, written in groups with a restart in between."""
    path = tmp_path_factory.mktemp("log")
    grown, writer, rng = CompactRange(), TileWriter(path), random.Random(3)
    while grown.size < COUNT:
        for leaf in LEAVES[grown.size : grown.size + rng.randrange(1, 900)]:
            grown.append(leaf, writer.completed)
        writer.write_full()
        writer.write_partial()
        if rng.random() < 0.1:
            reader = TileReader(path)
            grown, writer = reader.compact_range(grown.size), TileWriter(path)
            writer.load(grown.size, reader)
    return path


@pytest.mark.parametrize(("level", "number", "path"), [(0, 0, "tile/0/000"), (1, 1234067, "tile/1/x001/x234/067")])
def test_paths_are_those_of_the_specification(level: int, number: int, path: str) -> None:
    """Numbers are split into groups of three digits, all but the last marked."""
    assert tile_path(level, number) == path


@given(st.integers(0, 7), st.integers(0, 10**10), st.integers(1, 256))
def test_paths_are_read_back(level: int, number: int, width: int) -> None:
    """Every path names one tile."""
    assert parse_tile_path(tile_path(level, number, width)) == (level, number, width)


def test_proofs_come_from_tiles_alone(folder: Path) -> None:
    """Tiles of a tree of three levels prove leaves and growth, with few files read."""
    reader, root = TileReader(folder), _root(COUNT)

    assert reader.compact_range(COUNT).root() == root
    for index in (0, 255, 256, 65_535, 65_536, COUNT - 1):
        verify_inclusion(LEAVES[index], index, COUNT, inclusion_proof(reader.node, index, COUNT), root)
    for old in (1, 256, 1000, 65_536, COUNT - 1):
        verify_consistency(old, COUNT, consistency_proof(reader.node, old, COUNT), _root(old), root)


def test_only_the_tiles_of_the_tree_are_there(folder: Path) -> None:
    """Full tiles replace their partial ones, and of the right edge only the newest stays."""
    found = {parse_tile_path(str(path.relative_to(folder))) for path in (folder / TILES).rglob("*") if path.is_file()}

    full0, full1 = COUNT // 256, COUNT // 65_536
    expected = {(0, n, 256) for n in range(full0)} | {(0, full0, COUNT % 256), (1, 0, 256), (1, 1, full0 % 256), (2, 0, full1)}
    assert found == expected


def test_missing_tiles_are_recomputed_from_the_leaves(folder: Path, tmp_path: Path) -> None:
    """Any tile, of any level, can be lost."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    for lost in ("0/007", "1/000", "2/000.p"):
        path = copy / TILES / lost
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    assert TileReader(copy, lambda start, end: LEAVES[start:end]).compact_range(COUNT).root() == _root(COUNT)
    with pytest.raises(MissingTileError):
        TileReader(copy).node(0, 7 * 256)


def test_a_group_can_be_taken_back(tmp_path: Path) -> None:
    """What a failed write had collected leaves no trace."""
    writer, grown = TileWriter(tmp_path), CompactRange()
    for leaf in LEAVES[:300]:
        grown.append(leaf, writer.completed)
    state, before = writer.state(), grown.copy()
    for leaf in LEAVES[600:900]:
        grown.append(leaf, writer.completed)
    writer.restore(state)
    for leaf in LEAVES[300:600]:
        before.append(leaf, writer.completed)
    writer.write_full()
    writer.write_partial()

    assert not (tmp_path / tile_path(0, 0)).exists(), "taken back with what was not yet written"
    reader = TileReader(tmp_path, lambda start, end: LEAVES[start:end])
    assert reader.compact_range(600).root() == before.root() == _root(600)
