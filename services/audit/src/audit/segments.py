"""The files that hold the leaves, one a line; each is named after the index of its first leaf."""

import mmap
import os
import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tlog.tree import leaf_hash

_SUFFIX = ".jsonl"
_NAME = re.compile(r"\d{20}\.jsonl")


@dataclass(frozen=True, slots=True)
class Line:
    """A line and where it lies; `raw` has its newline unless the file ends without one."""

    index: int
    segment: Path
    number: int
    offset: int
    raw: bytes

    @property
    def leaf(self) -> bytes:
        """The leaf itself."""
        return self.raw.removesuffix(b"\n")

    @property
    def is_whole(self) -> bool:
        """Whether the line has its end."""
        return self.raw.endswith(b"\n")


class MisplacedSegmentError(Exception):
    """A file is missing, added or renamed; `index` is the leaf that should begin it."""

    def __init__(self, segment: Path, index: int) -> None:
        """Keep which leaf has no place."""
        super().__init__(
            f"{segment.name}: record {index} should begin a file named {name(index)}; a file is missing, added or renamed, "
            "or lines of the one before it are"
        )
        self.index = index


def name(first_index: int) -> str:
    """Return the name of the file that begins with leaf `first_index`."""
    return f"{first_index:020d}{_SUFFIX}"


def list_segments(folder: Path) -> list[Path]:
    """Return the files of the log, oldest first."""
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name)) if folder.is_dir() else []


def lines(folder: Path, start: int = 0) -> Iterator[Line]:
    """Yield the lines from the beginning of the file that holds leaf `start`; raise MisplacedSegmentError between files."""
    segments = list_segments(folder)
    firsts = [int(segment.stem) for segment in segments]
    begin = max(bisect_right(firsts, start) - 1, 0)
    index = firsts[begin] if segments and start else 0
    for segment in segments[begin:]:
        if segment.name != name(index):
            raise MisplacedSegmentError(segment, index)
        offset = 0
        with segment.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                yield Line(index, segment, number, offset, raw)
                offset += len(raw)
                index += 1


def leaf_hashes(folder: Path, start: int, end: int) -> list[bytes]:
    """Return the hashes of leaves [start, end), as many as there are."""
    found = []
    for line in lines(folder, start):
        if line.index >= end or not line.is_whole:
            break
        if line.index >= start:
            found.append(leaf_hash(line.leaf))
    return found


def read_line(segment: Path, offset: int) -> bytes:
    """Return the leaf that begins at `offset`."""
    with segment.open("rb") as file:
        file.seek(offset)
        return file.readline().removesuffix(b"\n")


def find(folder: Path, text: bytes) -> tuple[int, bytes] | None:
    """Return index and bytes of the first leaf that holds `text`, searching the files without decoding them."""
    for segment in list_segments(folder):
        if not segment.stat().st_size:
            continue
        with segment.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            at = content.find(text)
            if at >= 0:
                begin = content.rfind(b"\n", 0, at) + 1
                end = content.find(b"\n", at)
                return int(segment.stem) + content[:begin].count(b"\n"), content[begin : end if end >= 0 else len(content)]
    return None


def sync_folder(folder: Path) -> None:
    """Make names that were created or replaced in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
