"""The only writer of the log: whole groups reach the disk, or nothing of them stays."""

import errno
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import RLock
from typing import Any, BinaryIO

from audit import checkpoints, leaves, segments
from audit.checkpoints import CheckpointFile
from audit.keys import DEFAULT_CLASS, DataKey, KeyVault
from audit.leaves import InvalidLeafError, Leaf
from audit.producers import repeat_note
from audit.recovery import Recovery
from audit.view import Found, View
from chassis.errors import InternalError
from chassis.logging import get_logger
from evidence.sealing import SealedError
from tlog.notes import Checkpoint, Signer
from tlog.tiles import TileWriter
from tlog.tree import CompactRange, leaf_hash

log = get_logger("ledger")
_VIEW_ROWS = 2_000


@dataclass(frozen=True, slots=True)
class Received:
    """A record as the stream holds it: its position there, when it was stored (UTC, ISO 8601), and its content."""

    sequence: int
    stored_at: str
    record: dict[str, Any]


@dataclass(frozen=True, slots=True)
class LoggedRecord:
    """A record of the log with its index, the hash of its leaf, and whether its key was erased."""

    index: int
    hash: bytes
    record: dict[str, Any]
    erased: bool


@dataclass(frozen=True, slots=True)
class _New:
    """A leaf of the group at hand."""

    leaf: Leaf
    raw: bytes
    record: dict[str, Any]
    digest: bytes


def _nobody_else() -> None:
    """Stand for a log that no other process can write."""


class Ledger:
    """The open log; it may be used from several threads, one of which appends at a time."""

    def __init__(
        self,
        folder: Path,
        signer: Signer,
        vault: KeyVault,
        view: View,
        *,
        segment_bytes: int,
        min_free_bytes: int,
        epoch: int = 1,
        still_ours: Callable[[], None] = _nobody_else,
        retention: Mapping[str, int] | None = None,
    ) -> None:
        """Open the log; raise FailedPreconditionError when it is damaged or of an earlier format: nothing is written after a gap.

        `still_ours` raises OSError once another process has taken over; `retention` names the steps with a retention class of their own.
        """
        self.folder, self._signer, self.vault, self.view = folder, signer, vault, view
        self._segment_bytes, self._min_free_bytes = segment_bytes, min_free_bytes
        self._epoch, self.still_ours, self._classes = epoch, still_ours, frozenset(retention or ())
        self._lock = RLock()
        self._file: BinaryIO | None = None
        self._segment, self._end = folder / segments.name(0), 0
        self._must_repair = False
        self._published = -1
        self._tree, self._tiles = CompactRange(), TileWriter(folder)
        self.note = ""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._open()

    @property
    def size(self) -> int:
        """How many leaves the log has, all of them on the disk."""
        return self._tree.size

    @property
    def head(self) -> Checkpoint:
        """What the newest checkpoint says."""
        return Checkpoint(self._signer.name, self._tree.size, self._tree.root())

    def _open(self) -> None:
        found = Recovery(self.folder, self._signer)
        found.resume(has_keys=self.vault.exists)
        self._tree = found.tree
        self.catch_up()
        found.take_tail(self._is_new, self.still_ours)
        self._tree, self._tiles, self._segment, self._end = found.tree, found.tiles, found.segment, found.end
        self.note = found.note
        self._signed = CheckpointFile(self.folder / checkpoints.SIGNED, self.still_ours)
        self._repair()
        if found.has_news or not self.note:
            self._tiles.write_full()
            self._sign(self._tree)
        self.catch_up()
        self.publish()

    def _is_new(self, leaf: Leaf) -> bool:
        """Return whether this installation sealed a leaf that is not in the log yet; raise SealedError where it did not."""
        header = leaf.header
        keys = self.vault.open_keys({leaf.key})
        if leaf.key not in keys or self.view.stored([header["stream_sequence"]]) & {(header["stream_sequence"], header["stored_at"])}:
            return False
        leaves.open_record(leaf, keys[leaf.key])
        return True

    def _sign(self, tree: CompactRange) -> None:
        note = self._signer.sign(Checkpoint(self._signer.name, tree.size, tree.root()).text())
        self._signed.append(tree.size, note)
        self.note = note

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep the writer out while the block changes what belongs to the log besides its files."""
        with self._lock:
            yield

    def catch_up(self) -> None:
        """Bring the view to where the log is; one that knows more than the log, or something else, is built anew."""
        known = self.view.size
        if known > self._tree.size:
            self.view.reset(self._signer.name)
            known = 0
        if known == self._tree.size:
            return
        started, rows = time.perf_counter(), []
        for line in segments.lines(self.folder, known):
            if line.index >= self._tree.size:
                break
            if line.index >= known:
                rows.append((Found(line.index, int(line.segment.stem), line.offset), leaves.decode(line.leaf)))
            if len(rows) == _VIEW_ROWS:
                self._add_opened(rows)
                rows = []
        self._add_opened(rows)
        log.info("view_caught_up", records=self._tree.size - known, seconds=round(time.perf_counter() - started, 3))

    def _add_opened(self, rows: list[tuple[Found, Leaf]]) -> None:
        keys = self.vault.open_keys({leaf.key for _, leaf in rows})
        complete = []
        for found, leaf in rows:
            cipher = keys.get(leaf.key)
            record = None if cipher is None else leaves.open_record(leaf, cipher)
            complete.append((found, leaf, record, None if record is None else self.view.digest(record)))
        self.view.add(complete)

    def check_space(self) -> None:
        """Raise OSError when the disk is so full that nothing more should be accepted."""
        disk = os.statvfs(self.folder)
        if disk.f_bavail * disk.f_frsize < self._min_free_bytes:
            raise OSError(errno.ENOSPC, f"less than {self._min_free_bytes} bytes are free for the audit log")

    def append(self, group: list[Received]) -> int:
        """Write what is new of a group and return how much that is, once it is on the disk; after OSError nothing of it stays."""
        with self._lock:
            self.still_ours()
            self.check_space()
            if self._must_repair:
                self._repair()
            try:
                self.catch_up()
                new = self._encode(self._unknown(group))
            except sqlite3.Error as error:
                raise OSError(errno.EIO, f"the view of the audit log does not work: {error!r}") from error
            if new:
                self._store(new)
            self.still_ours()
            return len(new)

    def _unknown(self, group: list[Received]) -> list[tuple[Received, bytes]]:
        """Return what of a group is not logged yet, with its digest; a fact that comes again from elsewhere leaves a note of its number."""
        stored = self.view.stored([received.sequence for received in group])
        known = self.view.contents([str(received.record.get("record_id", "")) for received in group])
        found = []
        for delivered in group:
            if (delivered.sequence, delivered.stored_at) in stored:
                continue
            received: Received | None = delivered
            name, digest = str(delivered.record.get("record_id", "")), self.view.digest(delivered.record)
            if name and ((name, digest) in known or (name, None) in known):
                note = repeat_note(delivered.record)
                received = None if note is None else replace(delivered, record=note)
            else:
                known.add((name, digest))
            if received is not None:
                stored.add((received.sequence, received.stored_at))
                found.append((received, digest if received is delivered else self.view.digest(received.record)))
        return found

    def _encode(self, new: list[tuple[Received, bytes]]) -> list[_New]:
        wanted = []
        for received, _ in new:
            step = str(received.record.get("step", ""))
            retention = step if step in self._classes else DEFAULT_CLASS
            subject = leaves.subject_of(received.record)
            wanted.append((str(received.record.get("tenant", "")), subject, retention, received.stored_at[:7]))
        keys = self.vault.seal_keys(wanted) if wanted else []
        return [
            _New(*leaves.encode(received.record, self._place(received, key), key.secret), received.record, digest)
            for (received, digest), key in zip(new, keys, strict=True)
        ]

    def _place(self, received: Received, key: DataKey) -> leaves.Place:
        return leaves.Place(received.sequence, received.stored_at, self._epoch, key.id)

    def _store(self, new: list[_New]) -> None:
        if self._end >= self._segment_bytes:
            self._begin_segment()
        tree, tiles, first, offset = self._tree.copy(), self._tiles.state(), self._tree.size, self._end
        try:
            self._write(b"".join(item.raw + b"\n" for item in new))
            for item in new:
                tree.append(leaf_hash(item.raw), self._tiles.completed)
            self.still_ours()
            self._sign(tree)
        except BaseException:
            self._tiles.restore(tiles)
            self._must_repair = True
            with suppress(OSError):
                self._repair()
            raise
        self._tree, self._end = tree, self._end + sum(len(item.raw) + 1 for item in new)
        # The rest can be computed from the log again; what fails here is made up for later.
        try:
            self._tiles.write_full()
            self.view.add(list(self._rows(new, first, offset)))
        except (OSError, sqlite3.Error) as error:
            log.warning("derived_files_behind", error=repr(error))

    def _rows(self, new: list[_New], index: int, offset: int) -> Iterator[tuple[Found, Leaf, dict[str, Any], bytes]]:
        segment = int(self._segment.stem)
        for item in new:
            yield Found(index, segment, offset), item.leaf, item.record, item.digest
            index, offset = index + 1, offset + len(item.raw) + 1

    def _write(self, content: bytes) -> None:
        if self._file is None:
            self._file = checkpoints.open_ours(self._segment, self.still_ours)
        if self._end == 0:
            segments.sync_folder(self.folder)
        view = memoryview(content)
        while view:
            view = view[self._file.write(view) :]
        os.fdatasync(self._file.fileno())

    def _repair(self) -> None:
        """Take back whatever part of a failed group reached the files that were opened; under their names may be a successor's."""
        if self._file is None and self._segment.exists():
            self._file = checkpoints.open_ours(self._segment, self.still_ours)
        if self._file is not None:
            os.ftruncate(self._file.fileno(), self._end)
        self._close_file()
        self._signed.repair()
        self._must_repair = False

    def _begin_segment(self) -> None:
        self._close_file()
        self._segment, self._end = self.folder / segments.name(self._tree.size), 0

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def publish(self) -> tuple[str, int]:
        """Bring up to date what others read, the newest checkpoint and the tiles at the right edge; return its note and size."""
        with self._lock:
            if self._published != self._tree.size:
                self.still_ours()
                self._tiles.write_full()
                self._tiles.write_partial()
                checkpoints.publish(self.folder, self.note)
                self._published = self._tree.size
            return self.note, self._tree.size

    def read(self, wanted: str) -> list[LoggedRecord]:
        """Return the records of a request or trace id, oldest first; raise InternalError for one that is damaged."""
        found = [(place, segments.read_line(self.folder / segments.name(place.segment), place.offset)) for place in self.view.trace(wanted)]
        try:
            decoded = [(place, raw, leaves.decode(raw)) for place, raw in found]
            keys = self.vault.open_keys({leaf.key for *_, leaf in decoded})
            return [self._logged(place, raw, leaf, keys) for place, raw, leaf in decoded]
        except (InvalidLeafError, SealedError) as error:
            raise InternalError(f"the audit log is damaged: {error}") from error

    def _logged(self, place: Found, raw: bytes, leaf: Leaf, keys: Mapping[str, Any]) -> LoggedRecord:
        cipher = keys.get(leaf.key)
        record = leaves.clear_record(leaf) if cipher is None else leaves.open_record(leaf, cipher)
        return LoggedRecord(place.position, leaf_hash(raw), record, cipher is None)

    def close(self) -> None:
        """Close the files; what was appended is already on the disk."""
        with self._lock:
            with suppress(OSError):
                self.publish()
            self._close_file()
            self._signed.close()
            self.view.close()
            self.vault.close()


def timestamp(moment: datetime) -> str:
    """Return a moment as sortable text in UTC."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
