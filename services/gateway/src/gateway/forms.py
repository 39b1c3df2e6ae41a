"""A form with one file, read as it arrives: its fields first, then the bytes of the file, never the whole in memory."""

from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from gateway.refusals import RefusedError

_MOST_FIELDS = 40
_LONGEST_FIELD = 64 * 1024
FILE = "file"


@dataclass
class _Part:
    """A part of the form as far as it has arrived."""

    headers: dict[str, bytes] = field(default_factory=dict)
    name: str = ""
    file_name: str | None = None


class Form:
    """One form; `fields` and the file's name are known after `begin`, its bytes come from `content`."""

    def __init__(self, content_type: str, chunks: AsyncIterator[bytes]) -> None:
        """Bind the body; raise RefusedError where it is no form."""
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not boundary:
            raise RefusedError("invalid_request", "Send a form with one file, or JSON with the text.", param="content-type")
        self.fields: dict[str, list[str]] = {}
        self.file_name = ""
        self.file_type = ""
        self._chunks = chunks
        # What the parser found in a chunk and nobody has taken yet: a part, its data, its end.
        self._events: deque[tuple[str, bytes, _Part]] = deque()
        self._part = _Part()
        self._header: tuple[bytes, bytes] = (b"", b"")
        self._ended = False
        try:
            self._parser = MultipartParser(boundary, self._callbacks())
        except MultipartParseError as error:
            raise RefusedError("invalid_request", "The form's boundary is wrong.", param="content-type") from error

    async def begin(self) -> None:
        """Read until the file begins; raise RefusedError for a form without one."""
        value, size = bytearray(), 0
        async for what, data, part in self._read():
            if what == "part":
                if part.file_name is not None:
                    return self._file(part)
                value.clear()
            elif what == "data":
                value += data
                size += len(data)
                if size > _LONGEST_FIELD:
                    raise RefusedError("request_too_large", f"The fields of the form have more than {_LONGEST_FIELD} bytes.")
            elif what == "part_end":
                self._field(part.name, bytes(value))
        raise RefusedError("invalid_request", "The form has no file.", param=FILE)

    async def content(self) -> AsyncIterator[bytes]:
        """Yield the bytes of the file as they arrive; raise RefusedError for anything after it, and for an end that is missing."""
        async for what, data, _ in self._read():
            if what == "data":
                yield data
            elif what == "part":
                raise RefusedError("invalid_request", "The fields of the form must come before its one file.", param=FILE)
        if not self._ended:
            raise RefusedError("invalid_request", "The form is incomplete.")

    def _file(self, part: _Part) -> None:
        if part.name != FILE:
            raise RefusedError("invalid_request", f"The file must be the field {FILE!r}.", param=FILE)
        self.file_name = part.file_name or ""
        self.file_type = part.headers.get("content-type", b"").decode("latin-1")

    def _field(self, name: str, value: bytes) -> None:
        if sum(map(len, self.fields.values())) >= _MOST_FIELDS:
            raise RefusedError("invalid_request", f"The form has more than {_MOST_FIELDS} fields.")
        try:
            self.fields.setdefault(name, []).append(value.decode())
        except UnicodeDecodeError as error:
            raise RefusedError("invalid_request", "A field of the form is not UTF-8.", param=name[:64]) from error

    async def _read(self) -> AsyncIterator[tuple[str, bytes, _Part]]:
        while True:
            while self._events:
                yield self._events.popleft()
            try:
                chunk = await anext(self._chunks)
            except StopAsyncIteration:
                return
            try:
                self._parser.write(chunk)
            except MultipartParseError as error:
                raise RefusedError("invalid_request", "The form is malformed.") from error

    def _callbacks(self) -> Any:
        def part_begin() -> None:
            self._part = _Part()

        def header_field(data: bytes, start: int, end: int) -> None:
            self._header = (self._header[0] + data[start:end], b"")

        def header_value(data: bytes, start: int, end: int) -> None:
            self._header = (self._header[0], self._header[1] + data[start:end])

        def header_end() -> None:
            name, value = self._header
            self._part.headers[name.decode("latin-1").lower()] = value
            self._header = (b"", b"")

        def headers_finished() -> None:
            _, options = parse_options_header(self._part.headers.get("content-disposition", b""))
            self._part.name = options.get(b"name", b"").decode(errors="replace")
            if b"filename" in options:
                self._part.file_name = options[b"filename"].decode(errors="replace")
            self._events.append(("part", b"", self._part))

        def part_data(data: bytes, start: int, end: int) -> None:
            self._events.append(("data", data[start:end], self._part))

        def end() -> None:
            self._ended = True

        return {
            "on_part_begin": part_begin,
            "on_header_field": header_field,
            "on_header_value": header_value,
            "on_header_end": header_end,
            "on_headers_finished": headers_finished,
            "on_part_data": part_data,
            "on_part_end": lambda: self._events.append(("part_end", b"", self._part)),
            "on_end": end,
        }
