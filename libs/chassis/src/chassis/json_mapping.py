"""Protobuf's JSON mapping, several times faster than json_format for the messages of the bus."""

import base64
import json
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_AS_TEXT = frozenset({FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64})
_FLOATS = frozenset({FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT})


def to_json_bytes(message: Message) -> bytes:
    """Return a message as JSON in UTF-8, field names as in the proto, unset fields left out."""
    return json.dumps(_message(message), separators=(",", ":"), ensure_ascii=False).encode()


def _message(message: Any) -> Any:
    special = _WELL_KNOWN.get(message.DESCRIPTOR.full_name)
    if special is not None:
        return special(message)
    return {field.name: _field(field, value) for field, value in message.ListFields()}


def _field(field: FieldDescriptor, value: Any) -> Any:
    if not field.is_repeated:
        return _single(field, value)
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        of = entry.fields_by_name["value"]
        return {_key(key): _single(of, item) for key, item in value.items()}
    return [_single(field, item) for item in value]


def _key(key: Any) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)


def _single(field: FieldDescriptor, value: Any) -> Any:
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_MESSAGE:
        return _message(value)
    if kind in _FLOATS:
        return _number(value)
    if kind in _AS_TEXT:
        return str(value)
    if field.enum_type is not None:
        named = field.enum_type.values_by_number.get(value)
        return value if named is None else named.name
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _number(value: float) -> Any:
    if math.isfinite(value):
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _timestamp(message: Any) -> str:
    y, month, d, h, minute, s, *_ = time.gmtime(message.seconds)
    fraction = f".{message.nanos:09d}" if message.nanos else ""
    return f"{y:04}-{month:02}-{d:02}T{h:02}:{minute:02}:{s:02}{fraction}Z"


def _struct(message: Any) -> dict[str, Any]:
    return {key: _value(value) for key, value in message.fields.items()}


def _value(message: Any) -> Any:
    kind = message.WhichOneof("kind")
    if kind == "string_value":
        return message.string_value
    if kind == "number_value":
        return _number(message.number_value)
    if kind == "bool_value":
        return message.bool_value
    if kind == "struct_value":
        return _struct(message.struct_value)
    return [_value(item) for item in message.list_value.values] if kind == "list_value" else None


_WELL_KNOWN: Mapping[str, Callable[[Any], Any]] = {
    "google.protobuf.Struct": _struct,
    "google.protobuf.Value": _value,
    "google.protobuf.ListValue": lambda message: [_value(item) for item in message.values],
    "google.protobuf.Timestamp": _timestamp,
    "google.protobuf.Duration": lambda message: message.ToJsonString(),
}
