"""How the log is written."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from audit.head import HEAD_FILE
from audit.ledger import Ledger, try_lock
from audit.segments import list_segments, read
from audit.verification import verify
from chassis.errors import FailedPreconditionError

from .conftest import received

Open = Callable[..., Ledger]


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
    assert [located.entry.sequence for located in read(folder)] == [1, 5, 3]


def test_a_fact_published_twice_is_written_once(folder: Path, open_ledger: Open) -> None:
    """The same record at two places of the stream is one record; another content under its id is evidence and stays."""
    ledger = open_ledger()
    again = replace(received(2), record=received(1).record)
    other = replace(received(3), record={**received(1).record, "outcome": "failed"})

    assert ledger.append([received(1), again, other]) == 2
    assert verify(folder).intact


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
        file.write(b'{"index":2,"previous_ha')

    ledger = open_ledger()

    assert ledger.append([received(3)]) == 1
    found = verify(folder)
    assert (found.intact, found.size) == (True, 3)


def test_whole_lines_beyond_the_head_are_kept(folder: Path, open_ledger: Open) -> None:
    """A crash between the log and its head loses nothing and repeats nothing."""
    ledger = open_ledger()
    ledger.append([received(1)])
    head = (folder / HEAD_FILE).read_bytes()
    ledger.append([received(2)])
    (folder / HEAD_FILE).write_bytes(head)

    reopened = open_ledger()

    assert reopened.append([received(2), received(3)]) == 1
    assert verify(folder).size == 3


def test_a_damaged_log_is_never_written_to(folder: Path, open_ledger: Open) -> None:
    """A start refuses to build on a log that was changed, and says where."""
    open_ledger().append([received(n) for n in range(1, 4)])
    segment = list_segments(folder)[0]
    segment.write_bytes(segment.read_bytes().replace(b"r1/2", b"r1/7"))

    with pytest.raises(FailedPreconditionError, match="record 1"):
        open_ledger()


def test_a_failed_group_leaves_nothing(folder: Path, open_ledger: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk does not confirm, the group is taken back, and written whole on the next attempt."""
    ledger = open_ledger()
    ledger.append([received(1)])
    before = list_segments(folder)[-1].read_bytes()
    real, calls = os.fdatasync, iter([OSError(5, "Input/output error")])

    def failing(descriptor: int) -> None:
        for error in calls:
            raise error
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", failing)

    with pytest.raises(OSError, match="Input/output"):
        ledger.append([received(2), received(3)])
    assert list_segments(folder)[-1].read_bytes() == before
    assert ledger.append([received(2), received(3)]) == 2
    assert verify(folder).size == 3


def test_a_nearly_full_disk_is_refused_before_writing(open_ledger: Open) -> None:
    """The log keeps its distance from the end of the disk."""
    with pytest.raises(OSError, match="bytes are free"):
        open_ledger(min_free_bytes=2**62).append([received(1)])


def test_one_writer_at_a_time(folder: Path) -> None:
    """The lock is free again only when its holder is gone."""
    first = try_lock(folder)
    assert first is not None
    assert try_lock(folder) is None

    first.close()

    again = try_lock(folder)
    assert again is not None
    again.close()


def test_traces_are_found_by_request_and_by_trace_after_a_restart(open_ledger: Open) -> None:
    """The index of ids is rebuilt from the log, across its files."""
    open_ledger().append([received(n, request=f"r{n % 2}") for n in range(1, 9)])

    traces = open_ledger().traces

    assert [entry.sequence for entry in traces.read("r1")] == [1, 3, 5, 7]
    assert traces.read("r0-trace") == traces.read("r0")
    assert traces.read("unknown") == []
