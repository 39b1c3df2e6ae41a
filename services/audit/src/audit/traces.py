"""Where the records of a request or a trace lie; rebuilt from the log at every start."""

from array import array
from bisect import bisect_right
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audit.chain import DamagedLineError, Entry, decode
from chassis.errors import InternalError


@dataclass
class TraceIndex:
    """Offsets in bytes of every entry, and which entries belong to which id."""

    _segments: list[Path] = field(default_factory=list)
    _first_indexes: list[int] = field(default_factory=list)
    _offsets: "array[int]" = field(default_factory=lambda: array("Q"))
    _by_id: dict[str, "array[int]"] = field(default_factory=dict)

    def add(self, index: int, record: dict[str, Any], segment: Path, offset: int) -> None:
        """Remember the next entry."""
        if not self._segments or self._segments[-1] != segment:
            self._segments.append(segment)
            self._first_indexes.append(index)
        self._offsets.append(offset)
        for key in {record.get("request_id"), record.get("trace_id")} - {None, ""}:
            self._by_id.setdefault(str(key), array("Q")).append(index)

    def read(self, wanted: str) -> list[Entry]:
        """Return the entries of a request or trace id, oldest first; raise InternalError for one that is damaged."""
        return [self._read(index) for index in tuple(self._by_id.get(wanted, ()))]

    def _read(self, index: int) -> Entry:
        segment = self._segments[bisect_right(self._first_indexes, index) - 1]
        with segment.open("rb") as file:
            file.seek(self._offsets[index])
            line = file.readline()
        try:
            return decode(line.removesuffix(b"\n"))
        except DamagedLineError as error:
            raise InternalError(f"record {index} of the audit log is damaged: {error}") from error
