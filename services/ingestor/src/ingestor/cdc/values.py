"""What connectors make of column types that JSON does not have, turned back into text that reads the same everywhere."""

import base64
import binascii
import datetime as dt
import json
import re
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

UNAVAILABLE = "__debezium_unavailable_value"
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_TYPE = re.compile(r"(?P<name>[a-z_]+)(?:\((?P<scale>-?\d{1,4})\))?")

Convert = Callable[[Any], Any]


def known_type(text: str) -> str:
    """Return `text` when it names a type of a column; raise ValueError otherwise."""
    match = _TYPE.fullmatch(text)
    if match is None or match["name"] not in _BY_NAME or (match["name"] == "decimal") != (match["scale"] is not None):
        raise ValueError(f"unknown column type {text!r}; known: {[*sorted(set(_BY_NAME) - {'decimal'}), 'decimal(<scale>)']}")
    return text


def converter(name: str, *, precise: bool) -> Convert:
    """Return what decodes a column of a declared type; `precise` says that decimals come as bytes."""
    match = _TYPE.fullmatch(name)
    assert match is not None  # noqa: S101 - `known_type` has seen it
    if match["name"] == "decimal":
        scale = int(match["scale"])
        return lambda value: _decimal(value, scale, precise=precise)
    return _BY_NAME[match["name"]]


def by_schema(field: Mapping[str, Any]) -> Convert | None:
    """Return what decodes a field by the schema that the envelope carries; None where JSON has the type."""
    name, parameters = str(field.get("name") or ""), field.get("parameters") or {}
    if name == "org.apache.kafka.connect.data.Decimal":
        scale = int(parameters.get("scale", 0))
        return lambda value: _decimal(value, scale, precise=True)
    short = name.rpartition(".")[2]
    return _BY_SCHEMA.get(short) if name else None


def decode(value: Any, convert: Convert | None) -> Any:
    """Return the value of one column; raise ValueError when it is not of its type."""
    if value is None or value == UNAVAILABLE:
        return value
    if isinstance(value, dict) and set(value) == {"scale", "value"}:
        return _decimal(value["value"], int(value["scale"]), precise=True)
    return value if convert is None else convert(value)


def _decimal(value: Any, scale: int, *, precise: bool) -> str:
    """Return every digit: bytes are a number in two's complement, most significant byte first, without its decimal point."""
    if isinstance(value, str) and precise:
        try:
            unscaled = int.from_bytes(base64.b64decode(value, validate=True), "big", signed=True)
        except binascii.Error as error:
            raise ValueError(f"{value!r} is not a decimal in base64") from error
        return f"{Decimal(unscaled).scaleb(-scale):.{max(scale, 0)}f}"
    try:
        return f"{Decimal(str(value)):.{max(scale, 0)}f}"
    except InvalidOperation as error:
        raise ValueError(f"{value!r} is not a decimal") from error


def _date(value: Any) -> str:
    return _after_epoch("days", value).partition("T")[0] if isinstance(value, int) else str(value)


def _since(unit: str) -> Convert:
    def convert(value: Any) -> str:
        return _after_epoch(unit, value) if isinstance(value, int) else str(value)

    return convert


def _after_epoch(unit: str, value: int) -> str:
    try:
        return (_EPOCH + dt.timedelta(**{unit: value})).isoformat()
    except OverflowError:
        # Connectors send infinities as the largest numbers that they have.
        return "infinity" if value > 0 else "-infinity"


def _nanoseconds(value: Any) -> str:
    return _since("microseconds")(value // 1000) if isinstance(value, int) else str(value)


def _time_of_day(value: Any) -> str:
    return (_EPOCH + dt.timedelta(microseconds=value)).time().isoformat() if isinstance(value, int) else str(value)


def _json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


_BY_NAME: dict[str, Convert] = {
    "decimal": str,
    "text": str,
    "date": _date,
    "time": _time_of_day,
    "timestamp_ms": _since("milliseconds"),
    "timestamp": _since("microseconds"),
    "json": _json,
}
_BY_SCHEMA: dict[str, Convert] = {
    "Date": _date,
    "Time": lambda value: _time_of_day(value * 1000) if isinstance(value, int) else str(value),
    "MicroTime": _time_of_day,
    "Timestamp": _since("milliseconds"),
    "MicroTimestamp": _since("microseconds"),
    "NanoTimestamp": _nanoseconds,
    "Json": _json,
}
