"""Reads Debezium's envelopes, whoever wrote them: plain, with schemas, or as CloudEvents."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chassis.errors import InvalidArgumentError
from ingestor.cdc.mapping import Table
from ingestor.cdc.values import Convert, by_schema, decode

_ROW_OPS = frozenset("crud")


class PoisonError(InvalidArgumentError):
    """An event of a mapped table that nobody can read."""

    default_code = "unreadable_event"


class NamelessDeletionError(PoisonError):
    """A deletion that does not say of which row."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one row (`c`, `u`, `r`, `d`), or of a whole table (`t`), whose key is empty."""

    table: Table
    op: str
    key: str
    row: Mapping[str, Any]
    lsn: int
    # Place of the commit, by which changes become searchable together; that of the change where the commit's is unknown.
    position: int
    # Everything committed up to here was sent before.
    settled: int
    committed_ms: int
    snapshot: str = "false"
    # Columns that are not of their type, and why; the row goes without them, for its access may have changed all the same.
    unreadable: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Mark:
    """A control event of our own driver: a snapshot begins or ends, or everything up to `lsn` was sent."""

    source: str
    phase: str
    lsn: int
    tables: tuple[str, ...]
    committed_ms: int = 0


def parse_change(table: Table, data: bytes) -> Change | None:
    """Return the change that a body says; None for a tombstone; raise PoisonError."""
    if not data.strip():
        return None
    body, converters = _unwrapped(table, _object(data))
    if body is None:
        return None
    source = body.get("source")
    if not isinstance(source, dict):
        raise PoisonError("field 'source' is missing")
    op, lsn = body.get("op"), _integer(source, "lsn")
    if op not in _ROW_OPS and op != "t":
        raise PoisonError(f"field 'op' is {op!r}; known: {sorted(_ROW_OPS | {'t'})}")
    row, unreadable = _row(body.get("before" if op == "d" else "after"), converters)
    given, _ = _row(body.get("key"), converters)
    named = given | row
    key = "" if op == "t" else _deleted(table, named, unreadable) if op == "d" else _key(table, named, unreadable)
    position = _integer(source, "commit_lsn", lsn)
    # An external source tells its own places only, in the order in which it sends them.
    settled = _previous(source) if "commit_lsn" in source else lsn
    # Old values are made up where the replica identity is the default; a deletion needs none.
    values = {} if op in {"d", "t"} else row
    committed_ms, snapshot = _integer(source, "ts_ms", 0), str(source.get("snapshot") or "false")
    return Change(table, op, key, values, lsn, position, settled, committed_ms, snapshot, unreadable)


def row_change(table: Table, values: Mapping[str, Any], position: int, read_ms: int) -> Change:
    """Return a row that was read from the source as the change that says it, which holds since then at the latest; raise PoisonError."""
    row, unreadable = _row(values, table.converters)
    return Change(table, "r", _key(table, row, unreadable), row, position, position, 0, read_ms, unreadable=unreadable)


def parse_mark(source: str, data: bytes) -> Mark | None:
    """Return what a control event says, None when it is of a kind that nobody knows; raise PoisonError."""
    body = _object(data)
    phase = body.get("phase")
    if body.get("op") != "m" or phase not in {"begin", "end", "watermark"}:
        return None
    tables = body.get("tables") or ()
    if not isinstance(tables, list | tuple | dict):
        raise PoisonError("field 'tables' must be a list")
    return Mark(source, phase, _integer(body, "lsn"), tuple(str(name) for name in tables), _integer(body, "ts_ms", 0))


def _object(data: bytes) -> dict[str, Any]:
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise PoisonError(f"not JSON: {error}") from error
    if not isinstance(body, dict):
        raise PoisonError(f"not a JSON object but {type(body).__name__}")
    return body


def _unwrapped(table: Table, body: dict[str, Any]) -> tuple[dict[str, Any] | None, Mapping[str, Convert]]:
    """Return the plain envelope and what decodes its columns; declared types win over those of a schema."""
    converters: Mapping[str, Convert] = table.converters
    if "specversion" in body:
        body = _from_cloud_event(body)
    if set(body) == {"schema", "payload"}:
        converters = {**_from_schema(body["schema"]), **converters}
        body = body["payload"]
    if body is not None and not isinstance(body, dict):
        raise PoisonError("field 'payload' must be an object")
    return body, converters


def _from_cloud_event(body: dict[str, Any]) -> dict[str, Any]:
    """Return the envelope whose source is spread over the event's attributes."""
    data = body.get("data")
    if not isinstance(data, dict):
        raise PoisonError("field 'data' must be an object")
    payload = data["payload"] if set(data) == {"schema", "payload"} else data
    prefix, source = "iodebezium", dict(payload.get("source") or {})
    names = {"lsn": "lsn", "tsms": "ts_ms", "snapshot": "snapshot", "sequence": "sequence", "commitlsn": "commit_lsn"}
    source |= {name: body[prefix + short] for short, name in names.items() if body.get(prefix + short) is not None}
    envelope = {**payload, "op": body.get(f"{prefix}op", payload.get("op")), "source": source}
    return {"schema": data["schema"], "payload": envelope} if payload is not data else envelope


def _from_schema(schema: Any) -> dict[str, Convert]:
    fields = {field.get("field"): field for field in (schema or {}).get("fields") or ()}
    columns = (fields.get("after") or fields.get("before") or {}).get("fields") or ()
    found = {str(column.get("field")): by_schema(column) for column in columns}
    return {name: convert for name, convert in found.items() if convert is not None}


def _row(values: Any, converters: Mapping[str, Convert]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the columns that can be read, and why the others cannot."""
    if values is None:
        return {}, {}
    if not isinstance(values, dict):
        raise PoisonError(f"a row must be an object, not {type(values).__name__}")
    row, unreadable = dict[str, Any](), dict[str, str]()
    for name, value in values.items():
        try:
            row[name] = decode(value, converters.get(name))
        except (ValueError, OverflowError, TypeError, RecursionError) as error:
            unreadable[name] = f"column {name!r}: {error}"
    return row, unreadable


def _deleted(table: Table, values: Mapping[str, Any], unreadable: Mapping[str, str]) -> str:
    try:
        return _key(table, values, unreadable)
    except PoisonError as error:
        raise NamelessDeletionError(str(error), code=error.code) from error


def _key(table: Table, values: Mapping[str, Any], unreadable: Mapping[str, str]) -> str:
    if wrong := [unreadable[name] for name in table.mapping.key if name in unreadable]:
        raise PoisonError(wrong[0])
    try:
        parts = [values[name] for name in table.mapping.key]
    except KeyError as error:
        raise PoisonError(
            f"key column {error.args[0]!r} is missing; the event has {sorted(values)}", code="mapping_column_missing"
        ) from error
    if any(part is None for part in parts):
        raise PoisonError(f"a key column of {list(table.mapping.key)} is null")
    return json.dumps(parts, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def _integer(values: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = values.get(name)
    if value is None and default is not None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise PoisonError(f"field {name!r} is {value!r}; a number is needed")
    try:
        return int(value)
    except ValueError as error:
        raise PoisonError(f"field {name!r} is {value!r}; a number is needed") from error


def _previous(source: Mapping[str, Any]) -> int:
    try:
        return int(json.loads(source["sequence"])[0] or 0)
    except (KeyError, TypeError, ValueError, IndexError, RecursionError):
        return 0
