"""What a check of the files alone finds."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from audit.head import HEAD_FILE, Head, Signer, load_signer
from audit.ledger import Ledger
from audit.segments import list_segments
from audit.verification import verify

from .conftest import received


@pytest.fixture
def log(folder: Path, open_ledger: Callable[..., Ledger]) -> Path:
    """A log of twelve records in several files."""
    ledger = open_ledger()
    for first in (1, 5, 9):
        ledger.append([received(n) for n in range(first, first + 4)])
    assert len(list_segments(folder)) > 1
    return folder


def _lines(folder: Path) -> list[tuple[Path, bytes]]:
    return [(segment, line) for segment in list_segments(folder) for line in segment.read_bytes().splitlines(keepends=True)]


def _rewrite(folder: Path, segment: Path, change: Callable[[list[bytes]], None]) -> None:
    lines = segment.read_bytes().splitlines(keepends=True)
    change(lines)
    segment.write_bytes(b"".join(lines))


def test_an_untouched_log_is_intact(log: Path) -> None:
    """Size and head are those of the last record."""
    found = verify(log)

    assert found.intact, found.problem
    assert found.size == 12
    assert found.head == json.loads(_lines(log)[-1][1])["hash"]


def test_every_changed_byte_is_found_and_named(log: Path) -> None:
    """Whatever byte of a record is changed, the first bad record is the one that holds it."""
    rng = random.Random(7)
    index = 0
    for segment in list_segments(log):
        whole = segment.read_bytes()
        starts = [0, *(i + 1 for i, byte in enumerate(whole) if byte == 10)]
        for position in range(0, len(whole), 7):
            changed = bytearray(whole)
            changed[position] ^= rng.randrange(1, 256)
            segment.write_bytes(changed)

            found = verify(log)

            holder = index + sum(1 for start in starts[1:] if start <= position)
            assert not found.intact
            assert found.first_bad_index == holder, (segment.name, position, found)
            assert segment.name in found.problem
            assert f"record {holder}" in found.problem
        segment.write_bytes(whole)
        index += len(starts) - 1


def test_every_changed_byte_of_the_head_is_found(log: Path) -> None:
    """The signed end of the log cannot be edited."""
    whole = (log / HEAD_FILE).read_bytes()
    for position in range(len(whole)):
        for mask in (1, 2, 32):
            changed = bytearray(whole)
            changed[position] ^= mask
            (log / HEAD_FILE).write_bytes(changed)

            found = verify(log)

            assert not found.intact, (position, mask)
            assert HEAD_FILE in found.problem


def test_a_deleted_record_is_found(log: Path) -> None:
    """The gap is named by the record that is missing."""
    _rewrite(log, list_segments(log)[0], lambda lines: lines.pop(1))

    found = verify(log)

    assert (found.intact, found.first_bad_index) == (False, 1)
    assert "line 2" in found.problem


def test_swapped_records_are_found(log: Path) -> None:
    """The order is part of the chain."""

    def swap(lines: list[bytes]) -> None:
        lines[1], lines[2] = lines[2], lines[1]

    _rewrite(log, list_segments(log)[0], swap)

    found = verify(log)

    assert (found.intact, found.first_bad_index) == (False, 1)


def test_an_inserted_copy_is_found(log: Path) -> None:
    """A record cannot be there twice."""
    _rewrite(log, list_segments(log)[0], lambda lines: lines.insert(1, lines[0]))

    found = verify(log)

    assert (found.intact, found.first_bad_index) == (False, 1)


@pytest.mark.parametrize("which", [0, 1, -1])
def test_a_deleted_file_is_found(log: Path, which: int) -> None:
    """No file of the log can go, be it the first, one in between or the last."""
    lost = list_segments(log)[which]
    first = int(lost.stem)
    lost.unlink()

    found = verify(log)

    assert (found.intact, found.first_bad_index) == (False, first)


@pytest.mark.parametrize("cut", [1, 10, 400, 5_000])
def test_a_cut_tail_is_found(log: Path, cut: int) -> None:
    """The signed head knows how long the log was, however much of the end is gone."""
    remaining = cut
    for segment in reversed(list_segments(log)):
        size = segment.stat().st_size
        if remaining >= size:
            segment.unlink()
            remaining -= size
        else:
            segment.write_bytes(segment.read_bytes()[: size - remaining])
            break

    found = verify(log)

    assert not found.intact
    assert found.first_bad_index == found.size < 12


def test_a_rewritten_chain_is_found_without_the_key(log: Path, tmp_path: Path) -> None:
    """Who recomputes every hash still cannot sign the new head."""
    forged = tmp_path / "forged" / "audit"
    forged.mkdir(parents=True)
    signer = load_signer(forged.parent)
    ledger = Ledger(forged, signer, segment_bytes=10**6, min_free_bytes=0)
    ledger.append([received(n, tenant="other") for n in range(1, 13)])
    ledger.close()
    shutil.copytree(log.parent / "credentials", forged.parent / "credentials", dirs_exist_ok=True)

    found = verify(forged)

    assert not found.intact
    assert signer.key_id in found.problem


def test_an_older_head_with_a_cut_tail_is_found_by_the_witness(log: Path, open_ledger: Callable[..., Ledger]) -> None:
    """Whoever saw the log longer than the files now say finds the cut, even with a head that is signed."""
    ledger = open_ledger()
    older = ledger.head
    saved = (log / HEAD_FILE).read_bytes()
    segment = list_segments(log)[-1]
    before = segment.read_bytes()
    ledger.append([received(13)])
    list_segments(log)[-1].write_bytes(before)
    (log / HEAD_FILE).write_bytes(saved)

    assert verify(log).size == older.size
    found = verify(log, witness=ledger.head)

    assert (found.intact, found.first_bad_index) == (False, 12)


def test_records_beyond_the_signed_head_do_not_break_it(log: Path) -> None:
    """A check beside a running writer may see more than was signed, and half of the last line."""
    signer: Signer = load_signer(log.parent)
    tenth = json.loads(_lines(log)[9][1])
    signer.write(log, Head(10, tenth["hash"]))
    segment = list_segments(log)[-1]
    segment.write_bytes(segment.read_bytes()[:-5])

    found = verify(log)

    assert found.intact, found.problem
    assert found.size == 11


def test_no_log_is_not_an_intact_log(tmp_path: Path) -> None:
    """A wrong folder is said to be wrong."""
    assert not verify(tmp_path / "nowhere").intact
    assert not verify(tmp_path).intact
