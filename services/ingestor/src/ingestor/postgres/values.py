"""PostgreSQL's text of a value as JSON.

| type | JSON |
| --- | --- |
| integers, oid, float | number; NaN and infinities as text |
| numeric, money | text, every digit kept |
| boolean | boolean |
| date, timestamp, timestamptz (UTC, `Z`), interval | ISO 8601 text; infinities and years before Christ as PostgreSQL writes them |
| json, jsonb, everything else | text |
| bytea | base64 text |
| arrays | lists, of lists where they have dimensions |
| domains | as what they are made of |
"""

import base64
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

Json = str | int | float | bool | list["Json"] | None
Converter = Callable[[str], Json]

_NOT_FINITE = {"NaN", "Infinity", "-Infinity"}
# int2vector and oidvector are arrays by category, not by their text.
_VECTORS = {22, 30}


def _text(text: str) -> Json:
    return text


def _float(text: str) -> Json:
    return text if text in _NOT_FINITE else float(text)


def _timestamp(text: str) -> Json:
    return text if text.endswith(("infinity", "BC")) else text.replace(" ", "T", 1)


def _timestamptz(text: str) -> Json:
    if text.endswith(("infinity", "BC")):
        return text
    return text.removesuffix("+00").replace(" ", "T", 1) + ("Z" if text.endswith("+00") else "")


def _bytea(text: str) -> Json:
    return base64.b64encode(bytes.fromhex(text.removeprefix("\\x"))).decode()


_BY_OID: dict[int, Converter] = {
    16: "t".__eq__,
    17: _bytea,
    20: int,
    21: int,
    23: int,
    26: int,
    700: _float,
    701: _float,
    1114: _timestamp,
    1184: _timestamptz,
}


@dataclass(frozen=True)
class TypeRow:
    """What pg_type says about a type."""

    oid: int
    category: str
    element: int
    base: int
    delimiter: str


@dataclass
class Types:
    """The converters of a database's types."""

    rows: dict[int, TypeRow] = field(default_factory=dict)
    _known: dict[int, Converter] = field(default_factory=dict)

    def replace(self, rows: Iterable[TypeRow]) -> None:
        """Take over what the database says now."""
        self.rows = {row.oid: row for row in rows}
        self._known.clear()

    def missing(self, oids: Iterable[int]) -> bool:
        """Return whether one of the types is younger than what is known."""
        return any(oid not in self.rows for oid in oids)

    def converter(self, oid: int) -> Converter:
        """Return what makes JSON of a type's text; a type that nobody knows stays text."""
        if oid not in self._known:
            self._known[oid] = self._find(oid)
        return self._known[oid]

    def _find(self, oid: int) -> Converter:
        if oid in _BY_OID:
            return _BY_OID[oid]
        row = self.rows.get(oid)
        if row is None or oid in _VECTORS:
            return _text
        if row.base:
            return self.converter(row.base)
        if row.category == "A" and row.element:
            element, delimiter = self.converter(row.element), self.rows[row.element].delimiter if row.element in self.rows else ","
            return lambda text: parse_array(text, element, delimiter)
        return _text


def parse_array(text: str, element: Converter, delimiter: str = ",") -> list[Json]:
    """Return the list of an array's text, such as `{1,NULL,"a b"}` or `[0:1]={{a},{b}}`."""
    start = text.index("{")
    top: list[Json] = []
    stack: list[list[Json]] = []
    at, end = start, len(text)
    while at < end:
        char = text[at]
        if char == "{":
            inner: list[Json] = top if not stack else []
            if stack:
                stack[-1].append(inner)
            stack.append(inner)
            at += 1
        elif char == "}":
            stack.pop()
            at += 1
        elif char == delimiter:
            at += 1
        elif char == '"':
            value, at = _quoted(text, at + 1)
            stack[-1].append(element(value))
        else:
            stop = at
            while text[stop] != delimiter and text[stop] != "}":
                stop += 1
            word = text[at:stop]
            stack[-1].append(None if word == "NULL" else element(word))
            at = stop
    return top


def _quoted(text: str, at: int) -> tuple[str, int]:
    parts: list[str] = []
    while text[at] != '"':
        if text[at] == "\\":
            at += 1
        parts.append(text[at])
        at += 1
    return "".join(parts), at + 1
