"""The only writer of the log: whole groups reach the disk, or nothing of them stays."""

import errno
import fcntl
import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from audit.chain import encode
from audit.groundings import Groundings
from audit.head import HEAD_FILE, Head, Signer, sync_folder
from audit.seen import Seen
from audit.segments import Located, list_segments, name
from audit.traces import TraceIndex
from audit.verification import verify
from chassis.errors import FailedPreconditionError

_LOCK_FILE = "writer.lock"


@dataclass(frozen=True, slots=True)
class Received:
    """A record as the stream holds it: its position there, when it was stored (UTC, ISO 8601), and its content."""

    sequence: int
    stored_at: str
    record: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Line:
    received: Received
    index: int
    segment: Path
    offset: int


def try_lock(folder: Path) -> BinaryIO | None:
    """Return the open lock of the log, or None while another process holds it; it ends with the process."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = (folder / _LOCK_FILE).open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


class Ledger:
    """The open log; whoever uses it holds the lock, and calls it from one thread at a time."""

    def __init__(self, folder: Path, signer: Signer, *, segment_bytes: int, min_free_bytes: int) -> None:
        """Read the whole log; raise FailedPreconditionError when it is damaged, so that nothing is written after a gap."""
        self.folder, self._signer = folder, signer
        self._segment_bytes, self._min_free_bytes = segment_bytes, min_free_bytes
        self._seen, self.traces, self.groundings = Seen(), TraceIndex(), Groundings()
        self.head = Head()
        self._file: BinaryIO | None = None
        self._segment, self._end = folder / name(0), 0
        self._must_repair = False
        self._open()

    def _open(self) -> None:
        if not (self.folder / HEAD_FILE).exists() and not list_segments(self.folder):
            self._signer.write(self.folder, Head())
        found = verify(self.folder, each=self._take)
        if not found.intact:
            raise FailedPreconditionError(
                f"the audit log is damaged at record {found.first_bad_index}: {found.problem}; "
                f"keep {self.folder} as evidence and move it away to begin a new one"
            )
        # What a crash left behind the signed end follows from it and is signed now; a torn last line goes.
        self._repair()

    def _take(self, located: Located) -> None:
        entry = located.entry
        self._remember(Received(entry.sequence, entry.stored_at, entry.record), entry.index, located.segment, located.offset)
        self.head = Head(entry.index + 1, entry.hash)
        self._segment, self._end = located.segment, located.end

    def _remember(self, received: Received, index: int, segment: Path, offset: int) -> None:
        self._seen.add(received.sequence, received.stored_at, received.record)
        self.traces.add(index, received.record, segment, offset)
        self.groundings.add(received.record)

    def check_space(self) -> None:
        """Raise OSError when the disk is so full that nothing more should be accepted."""
        disk = os.statvfs(self.folder)
        if disk.f_bavail * disk.f_frsize < self._min_free_bytes:
            raise OSError(errno.ENOSPC, f"less than {self._min_free_bytes} bytes are free for the audit log")

    def append(self, group: list[Received]) -> int:
        """Write what is new of a group and return how much that is, once it is on the disk; after OSError nothing of it stays."""
        self.check_space()
        if self._must_repair:
            self._repair()
        if self._end >= self._segment_bytes:
            self._begin_segment()
        lines, content, head = self._encode(group)
        if not lines:
            return 0
        try:
            self._write(content)
            self._signer.write(self.folder, head)
        except BaseException:
            self._must_repair = True
            with suppress(OSError):
                self._repair()
            raise
        self.head, self._end = head, self._end + len(content)
        for line in lines:
            self._remember(line.received, line.index, line.segment, line.offset)
        return len(lines)

    def _encode(self, group: list[Received]) -> tuple[list[_Line], bytes, Head]:
        lines: list[_Line] = []
        content, head, new = bytearray(), self.head, Seen()
        for received in group:
            if any(seen.holds(received.sequence, received.stored_at, received.record) for seen in (self._seen, new)):
                continue
            new.add(received.sequence, received.stored_at, received.record)
            raw, digest = encode(head.size, head.hash, received.record, sequence=received.sequence, stored_at=received.stored_at)
            lines.append(_Line(received, head.size, self._segment, self._end + len(content)))
            content += raw + b"\n"
            head = Head(head.size + 1, digest)
        return lines, bytes(content), head

    def _write(self, content: bytes) -> None:
        if self._file is None:
            self._file = self._segment.open("ab", buffering=0)
        if self._end == 0:
            sync_folder(self.folder)
        view = memoryview(content)
        while view:
            view = view[self._file.write(view) :]
        os.fdatasync(self._file.fileno())

    def _repair(self) -> None:
        """Take back whatever part of a failed group reached the file, and its head."""
        self._close_file()
        if self._segment.exists():
            os.truncate(self._segment, self._end)
        self._signer.write(self.folder, self.head)
        self._must_repair = False

    def _begin_segment(self) -> None:
        self._close_file()
        self._segment, self._end = self.folder / name(self.head.size), 0

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def close(self) -> None:
        """Close the file; what was appended is already on the disk."""
        self._close_file()


def timestamp(moment: datetime) -> str:
    """Return a moment as sortable text in UTC."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
