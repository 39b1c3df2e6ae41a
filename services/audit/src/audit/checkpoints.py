"""The signed statements of how long the log is: every one ever made, and those that witnesses have cosigned."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from audit.segments import sync_folder
from tlog.notes import InvalidNoteError

PUBLISHED = "checkpoint"
SIGNED = "checkpoints.jsonl"
COSIGNED = "cosigned.jsonl"
_TAIL_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a file of checkpoints: the size, the note, and where it lies."""

    size: int
    note: str
    number: int
    offset: int
    end: int


def line(size: int, note: str) -> bytes:
    """Return the line of a note."""
    return json.dumps({"note": note, "size": size}, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def _parse(raw: bytes, where: str) -> tuple[int, str]:
    try:
        fields = json.loads(raw)
        size, note = fields["size"], fields["note"]
        if type(size) is int and isinstance(note, str) and line(size, note) == raw and note.split("\n")[1] == str(size):
            return size, note
    except (ValueError, KeyError, TypeError, IndexError, UnicodeDecodeError) as error:
        raise InvalidNoteError(f"{where}: not a checkpoint: {error!r}") from error
    raise InvalidNoteError(f"{where}: a checkpoint is not as it was written")


def length(path: Path) -> int:
    """Return how many bytes a file has now; 0 when there is none."""
    return path.stat().st_size if path.exists() else 0


def read(path: Path, limit: int) -> Iterator[Entry]:
    """Yield the checkpoints in the first `limit` bytes of a file, not checked; an unfinished last line is passed over.

    Raises InvalidNoteError at anything else.
    """
    if not path.exists():
        return
    offset = 0
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            if offset >= limit:
                return
            where = f"{path.name} line {number}"
            if not raw.endswith(b"\n"):
                if _is_unfinished(raw):
                    return
                raise InvalidNoteError(f"{where}: its end is not as it was written")
            size, note = _parse(raw, where)
            yield Entry(size, note, number, offset, offset + len(raw))
            offset += len(raw)


def _is_unfinished(raw: bytes) -> bool:
    """Tell whether a line is the beginning of a longer one, as a crash leaves it, and not a whole one with another end."""
    text = raw.decode(errors="replace")
    if not (text.startswith('{"note":"') or '{"note":"'.startswith(text)):
        return False
    try:
        json.JSONDecoder().raw_decode(text)
    except ValueError:
        return True
    # Whole but for its newline: a crash can cut exactly that.
    return raw.endswith(b"}") and line(*_parse(raw + b"\n", "last line")) == raw + b"\n"


def last(path: Path) -> Entry | None:
    """Return the last whole checkpoint of a file, reading only its end; None when it has none."""
    if not path.exists():
        return None
    with path.open("rb") as file:
        begin = max(file.seek(0, os.SEEK_END) - _TAIL_BYTES, 0)
        file.seek(begin)
        tail = file.read()
    stop = tail.rfind(b"\n")
    if stop < 0:
        return None
    start = tail.rfind(b"\n", 0, stop) + 1
    size, note = _parse(tail[start : stop + 1], f"last line of {path.name}")
    return Entry(size, note, 0, begin + start, begin + stop + 1)


def newest_notes(folder: Path) -> Iterator[str]:
    """Yield the newest note of each file that has one, not checked."""
    for name in (SIGNED, COSIGNED):
        if (entry := last(folder / name)) is not None:
            yield entry.note
    with suppress(FileNotFoundError):
        yield (folder / PUBLISHED).read_bytes().decode(errors="replace")


def find(path: Path, size: int) -> Entry | None:
    """Return the last checkpoint of exactly `size` leaves, by bisection: a file's sizes never fall."""
    found = None
    for entry in _from(path, size):
        if entry.size != size:
            break
        found = entry
    return found


def _from(path: Path, size: int) -> Iterator[Entry]:
    """Yield the checkpoints from the first of at least `size` leaves on."""
    if not path.exists():
        return
    with path.open("rb") as file:
        low, high = 0, file.seek(0, os.SEEK_END)
        while low < high:
            middle = (low + high) // 2
            file.seek(middle)
            file.readline()
            raw = file.readline()
            if raw.endswith(b"\n") and _parse(raw, path.name)[0] < size:
                low = middle + 1
            else:
                high = middle
        file.seek(low)
        if low:
            file.readline()
        # The first line has no line before it, so bisection never looked at it.
        if low <= 1:
            file.seek(0)
        while (raw := file.readline()).endswith(b"\n"):
            found, note = _parse(raw, path.name)
            if found >= size:
                end = file.tell()
                yield Entry(found, note, 0, end - len(raw), end)


def open_ours(path: Path, still_ours: Callable[[], None]) -> BinaryIO:
    """Open a file to add to it; raise OSError where another process has taken over.

    A successor gives the name to a copy after it said so; a file opened before that is one it no longer reads.
    """
    still_ours()
    file = path.open("ab", buffering=0)
    try:
        still_ours()
    except OSError:
        file.close()
        raise
    return file


class CheckpointFile:
    """A file to which checkpoints are added; each is on the disk before `append` returns."""

    def __init__(self, path: Path, still_ours: Callable[[], None] = lambda: None) -> None:
        """Cut what a crash left unfinished at its end; `still_ours` raises OSError once another process has taken over."""
        self._path, self._still_ours = path, still_ours
        newest = last(path)
        self.end = newest.end if newest is not None else 0
        self._file: BinaryIO | None = None

    def append(self, size: int, note: str) -> None:
        """Add a checkpoint; after OSError nothing of it stays in what `repair` leaves."""
        created = not self._path.exists()
        if self._file is None:
            self.repair()
            self._file = self._opened()
        if created:
            sync_folder(self._path.parent)
        content = line(size, note)
        view = memoryview(content)
        while view:
            view = view[self._file.write(view) :]
        os.fdatasync(self._file.fileno())
        self.end += len(content)

    def repair(self) -> None:
        """Cut whatever lies beyond the last checkpoint that was added, in the file as it was opened: by name it may be a successor's."""
        if self._file is None and self._path.exists():
            self._file = self._opened()
        if self._file is not None and os.fstat(self._file.fileno()).st_size > self.end:
            os.ftruncate(self._file.fileno(), self.end)
        self.close()

    def _opened(self) -> BinaryIO:
        return open_ours(self._path, self._still_ours)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def publish(folder: Path, note: str) -> None:
    """Replace the file in which others look for the newest checkpoint."""
    temporary = folder / f".{PUBLISHED}"
    with temporary.open("w") as file:
        file.write(note)
        file.flush()
        os.fdatasync(file.fileno())
    temporary.replace(folder / PUBLISHED)
