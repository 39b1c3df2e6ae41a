"""How the log is written."""

import json
import os
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from audit import checkpoints, leaves
from audit.keys import DataKey
from audit.ledger import Ledger
from audit.proving import Prover
from audit.segments import lines, list_segments
from audit.verification import verify
from chassis.errors import FailedPreconditionError
from tlog.notes import Signer, open_checkpoint
from tlog.tiles import TILES

from .conftest import received

Open = Callable[..., Ledger]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def _sequences(folder: Path) -> list[int]:
    return [leaves.decode(line.leaf).header["stream_sequence"] for line in lines(folder)]


def test_repeats_are_written_once(folder: Path, open_ledger: Open) -> None:
    """A delivery that comes again adds nothing, in the same group, a later one, or after a restart."""
    ledger = open_ledger()

    assert ledger.append([received(1), received(2), received(1)]) == 2
    assert ledger.append([received(2), received(3)]) == 1
    assert open_ledger().append([received(1), received(3)]) == 0
    assert verify(folder).size == 3


def test_a_late_delivery_is_not_taken_for_a_repeat(folder: Path, open_ledger: Open) -> None:
    """A record whose place in the stream was passed over is still written."""
    ledger = open_ledger()

    assert ledger.append([received(1), received(5)]) == 2
    assert ledger.append([received(3)]) == 1
    assert _sequences(folder) == [1, 5, 3]


def test_a_fact_published_twice_is_written_once(folder: Path, open_ledger: Open) -> None:
    """The same record at two places of the stream is one record; another content under its id is evidence and stays."""
    ledger = open_ledger()
    again = replace(received(2), record=received(1).record)
    other = replace(received(3), record={**received(1).record, "outcome": "failed"})

    assert ledger.append([received(1), again, other]) == 2
    assert verify(folder).intact


def test_a_fact_published_by_two_processes_leaves_no_gap(folder: Path, open_ledger: Open) -> None:
    """Whoever repeats a record after a crash has a number of its own; the log notes it and does not hold the content twice."""
    first = received(1, producer="router/a", producer_sequence=1)
    again = Received_with(first, sequence=2, producer="router/b", producer_sequence=1)
    after = received(3, producer="router/b", producer_sequence=2)
    ledger = open_ledger()

    assert ledger.append([first, again, after]) == 3
    assert [record.record["step"] for record in ledger.read("r1")] == ["route", "repeat", "route"]
    assert verify(folder).gaps == ()


def Received_with(received_: Any, *, sequence: int, **fields: Any) -> Any:  # noqa: N802 - reads like the type that it makes
    """Return a record at another place with other stamps."""
    return replace(received_, sequence=sequence, record={**received_.record, **fields})


def test_a_new_stream_counts_from_one_again(open_ledger: Open) -> None:
    """Records of a stream that was made anew are not mistaken for those of the old one."""
    ledger = open_ledger()
    ledger.append([received(n) for n in range(1, 4)])
    later = "2026-11-22T00:00:00.000000+00:00"

    assert ledger.append([replace(received(1, request="r9"), stored_at=later)]) == 1
    assert ledger.append([replace(received(1, request="r9"), stored_at=later)]) == 0


def test_a_torn_last_line_is_cut_and_written_anew(folder: Path, open_ledger: Open) -> None:
    """What a crash left half written was never acknowledged, comes again and is then whole."""
    open_ledger().append([received(1), received(2)])
    with list_segments(folder)[-1].open("ab") as file:
        file.write(b'{"attempt":1,"previous_ha')

    ledger = open_ledger()

    assert ledger.append([received(3)]) == 1
    found = verify(folder)
    assert (found.intact, found.size) == (True, 3)


def test_whole_lines_beyond_the_checkpoint_are_kept(folder: Path, open_ledger: Open) -> None:
    """A crash between the log and its checkpoint loses nothing and repeats nothing."""
    ledger = open_ledger()
    ledger.append([received(1)])
    signed = (folder / checkpoints.SIGNED).read_bytes()
    ledger.append([received(2)])
    (folder / checkpoints.SIGNED).write_bytes(signed + b'{"note":"half')

    reopened = open_ledger()

    assert reopened.append([received(2), received(3)]) == 1
    assert verify(folder).size == 3


def _another(line: bytes, **changed: object) -> bytes:
    return leaves.canonical({**json.loads(line), **changed}) + b"\n"


@pytest.mark.parametrize("changed", [{}, {"stream_sequence": 9}, {"stream_sequence": 9, "key": "0" * 20}, {"stream_sequence": None}])
def test_a_line_that_somebody_added_is_never_signed(folder: Path, open_ledger: Open, changed: dict[str, object]) -> None:
    """Who can write to the folder and has no key gets nothing into the log by waiting for the next start."""
    ledger = open_ledger()
    ledger.append([received(1), received(2)])
    ledger.close()
    (segment,) = list_segments(folder)
    with segment.open("ab") as file:
        file.write(_another(segment.read_bytes().splitlines(keepends=True)[-1], **changed))

    reopened = open_ledger()

    assert reopened.size == 2
    assert reopened.append([received(3)]) == 1
    found = verify(folder)
    assert (found.intact, found.size) == (True, 3)


def test_a_damaged_log_is_never_written_to(folder: Path, open_ledger: Open) -> None:
    """A start refuses to build on a log that was changed, and says where."""
    ledger = open_ledger()
    ledger.append([received(n) for n in range(1, 4)])
    ledger.close()
    segment = list_segments(folder)[0]
    segment.write_bytes(segment.read_bytes().replace(b"r1/2", b"r1/7"))

    with pytest.raises(FailedPreconditionError, match="at record 1"):
        open_ledger()


def test_a_log_of_the_earlier_format_is_refused_in_one_line(folder: Path, open_ledger: Open) -> None:
    """Nobody's hash chain is continued as a tree."""
    (folder / "head.json").write_text("{}")

    with pytest.raises(FailedPreconditionError, match="earlier format"):
        open_ledger()


def test_a_failed_group_leaves_nothing(folder: Path, open_ledger: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk does not confirm records or checkpoint, the group is taken back, and written whole on the next attempt."""
    ledger = open_ledger()
    ledger.append([received(1)])
    files = [list_segments(folder)[-1], folder / checkpoints.SIGNED]
    before = [file.read_bytes() for file in files]
    real = os.fdatasync
    for failing_call in (1, 2):
        calls = iter(range(1, 100))

        def failing(descriptor: int, calls: Any = calls, failing_call: int = failing_call) -> None:
            if next(calls) == failing_call:
                raise OSError(5, "Input/output error")
            real(descriptor)

        monkeypatch.setattr(os, "fdatasync", failing)

        with pytest.raises(OSError, match="Input/output"):
            ledger.append([received(2), received(3)])
        assert [file.read_bytes() for file in files] == before
    assert ledger.append([received(2), received(3)]) == 2
    assert verify(folder).size == 3


def test_a_nearly_full_disk_is_refused_before_writing(open_ledger: Open) -> None:
    """The log keeps its distance from the end of the disk."""
    with pytest.raises(OSError, match="bytes are free"):
        open_ledger(min_free_bytes=2**62).append([received(1)])


def test_traces_are_found_by_request_and_by_trace_after_a_restart(open_ledger: Open) -> None:
    """The view of ids is there again, across the files of the log, and what it finds is opened."""
    open_ledger().append([received(n, request=f"r{n % 2}") for n in range(1, 9)])

    ledger = open_ledger()

    assert [found.record["record_id"] for found in ledger.read("r1")] == ["r1/1", "r1/3", "r1/5", "r1/7"]
    assert ledger.read("r0-trace") == ledger.read("r0")
    assert ledger.read("r0")[0].record["details"] == {"note": "é"}
    assert ledger.read("r0")[0].record["duration_ms"] == 1.5
    assert ledger.read("unknown") == []


@pytest.mark.parametrize("damage", ["deleted", "garbage", "ahead", "behind"])
def test_the_view_is_built_again_from_the_log(folder: Path, open_ledger: Open, damage: str) -> None:
    """A view that is lost, unreadable, of a longer log or of a shorter one is no reason to forget or repeat a record."""
    ledger = open_ledger()
    ledger.append([received(n) for n in range(1, 9)])
    ledger.close()
    path = folder.parent / "audit_run" / "view.db"
    if damage == "deleted":
        path.unlink()
    elif damage == "garbage":
        path.write_bytes(b"x" * 5_000)
    else:
        with sqlite3.connect(path) as view:
            statement = "UPDATE records SET position = position + 50" if damage == "ahead" else "DELETE FROM records WHERE position > 3"
            view.execute(statement)

    ledger = open_ledger()

    assert ledger.append([received(n) for n in range(1, 10)]) == 1
    assert len(ledger.read("r1")) == 9


def test_lost_tiles_are_made_again(folder: Path, open_ledger: Open) -> None:
    """The log opens without the files that can be computed from it, and has them again."""
    import shutil

    ledger = open_ledger(segment_bytes=100_000)
    for first in range(1, 700, 100):
        ledger.append([received(n) for n in range(first, first + 100)])
    ledger.close()
    before = {path.relative_to(folder): path.read_bytes() for path in (folder / TILES).rglob("*") if path.is_file()}
    shutil.rmtree(folder / TILES)

    open_ledger(segment_bytes=100_000).append([received(1)])

    after = {path.relative_to(folder): path.read_bytes() for path in (folder / TILES).rglob("*") if path.is_file()}
    assert before == after
    assert len(before) == 4
    assert verify(folder).intact


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(st.sampled_from([name for name in leaves.CLEAR if name not in {"attempt", "producer_sequence"}]), TEXT),
    TEXT,
    st.integers(1, 2**53 - 1),
)
def test_a_leaf_is_canonical_and_read_back(strings: dict[str, str], note: str, number: int) -> None:
    """A leaf's bytes are those that RFC 8785 asks for, whatever the texts, and the record that comes out is the one that went in."""
    record = {**{name: value for name, value in strings.items() if value}, "attempt": number, "details": {"note": note}, "user": note}
    key = DataKey("k1", bytes(32))
    leaf, raw = leaves.encode(record, leaves.Place(7, "2026-11-21T08:00:00.000000+00:00", 3, key.id), key.secret)

    assert rfc8785.dumps(json.loads(raw)) == raw
    assert b"\n" not in raw
    assert leaves.decode(raw) == leaf
    assert leaves.open_record(leaf, key.secret) == record


def test_no_header_can_be_exchanged(open_ledger: Open) -> None:
    """What is sealed belongs to its header: the same text under another header does not open."""
    key = bytes(32)
    leaf, _ = leaves.encode(received(1).record, leaves.Place(1, "x", 1, "k"), key)

    with pytest.raises(leaves.SealedError):
        leaves.open_record(leaves.Leaf({**leaf.header, "outcome": "failed"}, leaf.sealed), key)


def test_a_fenced_writer_writes_nothing_more(folder: Path, open_ledger: Open) -> None:
    """Once another holds the log, a group is refused before it reaches a file."""

    def fenced() -> None:
        raise OSError("another writes")

    ledger = open_ledger()
    ledger.append([received(1)])
    ledger.still_ours = fenced
    before = list_segments(folder)[0].read_bytes()

    with pytest.raises(OSError, match="another writes"):
        ledger.append([received(2)])
    assert list_segments(folder)[0].read_bytes() == before


def test_a_log_goes_on_under_a_new_key(folder: Path, open_ledger: Open) -> None:
    """After the signing key is exchanged, earlier checkpoints count as before, and the log is one."""
    ledger = open_ledger()
    ledger.append([received(1)])
    ledger.close()
    keys, private = folder.parent / "credentials" / "audit_log.vkey", folder.parent / "credentials" / "audit" / "log.pem"
    fresh = Signer(ledger.head.origin, Ed25519PrivateKey.generate())
    keys.write_text(f"{keys.read_text()}{fresh.verifier}\n")
    private.write_bytes(fresh.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    ledger = open_ledger()
    ledger.append([received(2)])
    ledger.close()

    found = verify(folder)
    assert (found.intact, found.size) == (True, 2), found.problem
    proof = Prover(folder).consistency(1, 2)
    assert proof["verifier_key"] == str(fresh.verifier)
    assert [open_checkpoint(proof[name], fresh.verifier)[0].size for name in ("old_checkpoint", "new_checkpoint")] == [1, 2]


def test_missing_numbers_of_a_producer_are_named(folder: Path, open_ledger: Open) -> None:
    """A record that never reached the log leaves a hole in its producer's numbers; order and repeats do not matter."""
    ledger = open_ledger()
    numbers = {"gateway/a": [2, 1, 3, 7, 5, 6], "router/b": [1, 2], "guardrail/c": [4]}
    sequence = 0
    for producer, found in numbers.items():
        for number in found:
            sequence += 1
            ledger.append([received(sequence, producer=producer, producer_sequence=number)])

    found_ = verify(folder)

    assert found_.intact
    assert found_.gaps == ("gateway/a: 4-4", "guardrail/c: 1-3")
