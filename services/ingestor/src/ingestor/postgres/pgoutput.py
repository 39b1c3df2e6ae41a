"""The messages of PostgreSQL's output plug-in pgoutput, protocol version 1."""

import struct
from dataclasses import dataclass
from enum import Enum

from chassis.errors import InternalError

# PostgreSQL counts microseconds from 2000-01-01.
_EPOCH_MICROSECONDS = 946_684_800_000_000


class ProtocolError(InternalError):
    """PostgreSQL sent what this version of the protocol does not have."""

    default_code = "replication_protocol_error"


class Unchanged(Enum):
    """A value that is stored apart from its row and was not sent because it did not change."""

    UNCHANGED = "u"


UNCHANGED = Unchanged.UNCHANGED
Row = tuple[str | Unchanged | None, ...]


@dataclass(frozen=True, slots=True)
class Begin:
    """A committed transaction starts; all of its messages follow, then its Commit."""

    commit_lsn: int
    committed_microseconds: int
    transaction: int


@dataclass(frozen=True, slots=True)
class Commit:
    """A transaction is complete; `end_lsn` is what may be confirmed."""

    commit_lsn: int
    end_lsn: int
    committed_microseconds: int


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a relation, in the order of its rows."""

    name: str
    type_oid: int
    is_key: bool


@dataclass(frozen=True, slots=True)
class Relation:
    """The shape of a table, sent before its first change and after each change of the shape."""

    oid: int
    schema: str
    table: str
    replica_identity: str
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class Insert:
    """A new row."""

    relation: int
    new: Row


@dataclass(frozen=True, slots=True)
class Update:
    """A changed row; `old` only where the key changed or the whole old row is the identity (`old_is_whole`)."""

    relation: int
    old: Row | None
    old_is_whole: bool
    new: Row


@dataclass(frozen=True, slots=True)
class Delete:
    """A row that is gone; without `old_is_whole` only its key columns have values."""

    relation: int
    old: Row
    old_is_whole: bool


@dataclass(frozen=True, slots=True)
class Truncate:
    """Tables that were emptied."""

    relations: tuple[int, ...]


Message = Begin | Commit | Relation | Insert | Update | Delete | Truncate


class _Reader:
    """Reads one message from its first byte on."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 1

    def take(self, layout: struct.Struct) -> tuple[int, ...]:
        values = layout.unpack_from(self.data, self.at)
        self.at += layout.size
        return values

    def text(self) -> str:
        end = self.data.index(b"\0", self.at)
        value = self.data[self.at : end].decode(errors="replace")
        self.at = end + 1
        return value

    def kind(self) -> bytes:
        self.at += 1
        return self.data[self.at - 1 : self.at]

    def row(self) -> Row:
        data = self.data
        (count,) = self.take(_INT16)
        at = self.at
        values: list[str | Unchanged | None] = []
        for _ in range(count):
            kind = data[at]
            at += 1
            if kind == _TEXT:
                (length,) = _INT32.unpack_from(data, at)
                at += 4 + length
                if at > len(data):
                    raise ProtocolError("a value ends beyond its message")
                # A database in SQL_ASCII can hold bytes that are no text; they become U+FFFD.
                values.append(data[at - length : at].decode(errors="replace"))
            elif kind == _NULL:
                values.append(None)
            elif kind == _UNCHANGED:
                values.append(UNCHANGED)
            else:
                raise ProtocolError(f"unknown kind of value {bytes([kind])!r}")
        self.at = at
        return tuple(values)


_INT16, _INT32 = struct.Struct("!h"), struct.Struct("!i")
_BEGIN, _COMMIT = struct.Struct("!QqI"), struct.Struct("!BQQq")
_RELATION, _COLUMN = struct.Struct("!I"), struct.Struct("!Ii")
_TRUNCATE = struct.Struct("!iB")
_TEXT, _NULL, _UNCHANGED = b"tnu"


def _relation(reader: _Reader) -> Relation:
    (oid,) = reader.take(_RELATION)
    # The schema pg_catalog is sent as an empty name.
    schema, table = reader.text() or "pg_catalog", reader.text()
    identity = reader.kind().decode()
    (count,) = reader.take(_INT16)
    columns = []
    for _ in range(count):
        flags = reader.kind()[0]
        name = reader.text()
        type_oid, _modifier = reader.take(_COLUMN)
        columns.append(Column(name, type_oid, bool(flags & 1)))
    return Relation(oid, schema, table, identity, tuple(columns))


def _update(reader: _Reader) -> Update:
    (relation,) = reader.take(_RELATION)
    kind, old = reader.kind(), None
    whole = kind == b"O"
    if kind != b"N":
        old = reader.row()
        reader.kind()
    return Update(relation, old, whole, reader.row())


def _change(data: bytes) -> Message | None:
    reader, kind = _Reader(data), data[:1]
    if kind == b"I":
        (relation,) = reader.take(_RELATION)
        reader.kind()
        return Insert(relation, reader.row())
    if kind == b"U":
        return _update(reader)
    if kind == b"D":
        (relation,) = reader.take(_RELATION)
        whole = reader.kind() == b"O"
        return Delete(relation, reader.row(), whole)
    if kind == b"T":
        count, _options = reader.take(_TRUNCATE)
        return Truncate(tuple(reader.take(_RELATION)[0] for _ in range(count)))
    if kind == b"R":
        return _relation(reader)
    # Types, origins and messages say nothing about rows.
    if kind in {b"Y", b"O", b"M"}:
        return None
    raise ProtocolError(f"unknown message {kind!r}")


def decode(data: bytes) -> Message | None:
    """Return the message, or None for one that says nothing about rows; raise ProtocolError when it is none."""
    try:
        if data[:1] == b"B":
            commit_lsn, committed, transaction = _BEGIN.unpack_from(data, 1)
            return Begin(commit_lsn, committed + _EPOCH_MICROSECONDS, transaction)
        if data[:1] == b"C":
            _flags, commit_lsn, end_lsn, committed = _COMMIT.unpack_from(data, 1)
            return Commit(commit_lsn, end_lsn, committed + _EPOCH_MICROSECONDS)
        return _change(data)
    except (struct.error, IndexError, ValueError) as error:
        raise ProtocolError(f"message {data[:1]!r} of {len(data)} bytes cannot be read: {error}") from error
