"""The files of the log, read in order; the first line that breaks the chain ends the reading."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from audit.chain import GENESIS, DamagedLineError, Entry, decode

_SUFFIX = ".jsonl"


@dataclass(frozen=True, slots=True)
class Located:
    """An entry and where its line lies; `end` is the offset in bytes after its newline."""

    entry: Entry
    segment: Path
    line: int
    offset: int
    end: int


class BrokenChainError(Exception):
    """The log is not what was written from `index` on; `torn` when only an unfinished last line is left over."""

    def __init__(self, problem: str, *, index: int, segment: Path, offset: int, torn: bool = False) -> None:
        """Keep where the first bad line lies, its offset in bytes."""
        super().__init__(problem)
        self.index, self.segment, self.offset, self.torn = index, segment, offset, torn


def name(first_index: int) -> str:
    """Return the name of the file that begins with entry `first_index`."""
    return f"{first_index:020d}{_SUFFIX}"


def list_segments(folder: Path) -> list[Path]:
    """Return the files of the log, oldest first."""
    return sorted(folder.glob(f"*{_SUFFIX}"))


def read(folder: Path) -> Iterator[Located]:
    """Yield every entry from the first; raise BrokenChainError at the first bad one."""
    index, previous = 0, GENESIS
    segments = list_segments(folder)
    for segment in segments:
        if segment.name != name(index):
            problem = f"{segment.name}: record {index} should begin a file named {name(index)}; a file is missing, added or renamed"
            raise BrokenChainError(problem, index=index, segment=segment, offset=0)
        for located in _read_segment(segment, index, previous, is_last=segment is segments[-1]):
            yield located
            index, previous = located.entry.index + 1, located.entry.hash


def _read_segment(segment: Path, index: int, previous: str, *, is_last: bool) -> Iterator[Located]:
    offset = 0
    with segment.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            torn = is_last and not raw.endswith(b"\n")
            try:
                entry = _checked(raw, index, previous)
            except DamagedLineError as error:
                problem = f"{segment.name} line {number}, record {index}: {error}"
                raise BrokenChainError(problem, index=index, segment=segment, offset=offset, torn=torn) from error
            end = offset + len(raw)
            yield Located(entry, segment, number, offset, end)
            index, previous, offset = index + 1, entry.hash, end


def _checked(raw: bytes, index: int, previous: str) -> Entry:
    if not raw.endswith(b"\n"):
        raise DamagedLineError("the line has no end")
    entry = decode(raw[:-1])
    if entry.index != index:
        raise DamagedLineError(f"record {entry.index} stands here; one was deleted, inserted or moved")
    if entry.previous_hash != previous:
        raise DamagedLineError("it does not follow from the record before it")
    return entry
