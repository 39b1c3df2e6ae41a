"""The AsyncAPI 3 document, generated from the catalogue of subjects."""

import json
import re
import sys
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from contracts.subjects import SUBJECTS, Subject

_LONG = {"type": "string", "description": "64-bit integer"}
_SCALARS: dict[int, dict[str, Any]] = {
    FieldDescriptor.TYPE_INT32: {"type": "integer"},
    FieldDescriptor.TYPE_UINT32: {"type": "integer"},
    FieldDescriptor.TYPE_INT64: _LONG,
    FieldDescriptor.TYPE_UINT64: _LONG,
    FieldDescriptor.TYPE_DOUBLE: {"type": "number"},
    FieldDescriptor.TYPE_FLOAT: {"type": "number"},
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "format": "byte"},
}
_WELL_KNOWN: dict[str, dict[str, Any]] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Struct": {"type": "object"},
}


def document() -> dict[str, Any]:
    """Return the document as plain JSON types; schemas are those of protobuf's JSON mapping."""
    schemas: dict[str, Any] = {}
    channels, operations, messages = {}, {}, {}
    for subject in SUBJECTS:
        name = subject.message.DESCRIPTOR.full_name
        channel = name.rsplit(".", 1)[1]
        messages[channel] = _message(subject, schemas)
        channels[channel] = {
            "address": subject.template,
            "title": subject.summary,
            "parameters": {p: {"description": f"Token {p}."} for p in re.findall(r"\{([^}]*)\}", subject.template)},
            "messages": {channel: {"$ref": f"#/components/messages/{channel}"}},
            "x-jetstream": {"stream": subject.stream},
        }
        operations[f"on{channel}"] = {"action": "receive", "channel": {"$ref": f"#/channels/{channel}"}}
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Strata", "version": "1", "description": "Facts on the bus, as CloudEvents in binary mode."},
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "schemas": schemas},
    }


def _message(subject: Subject, schemas: dict[str, Any]) -> dict[str, Any]:
    descriptor = subject.message.DESCRIPTOR
    return {
        "name": descriptor.full_name,
        "contentType": "application/json" if subject.json else "application/protobuf",
        "summary": subject.summary,
        "payload": _reference(descriptor, schemas),
    }


def _reference(descriptor: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    name = descriptor.full_name
    if name in _WELL_KNOWN:
        return _WELL_KNOWN[name]
    if name not in schemas:
        # Set before the fields are visited, so that a message that holds itself ends.
        schemas[name] = {"type": "object", "properties": {}}
        schemas[name]["properties"] = {field.name: _field(field, schemas) for field in descriptor.fields}
    return {"$ref": f"#/components/schemas/{name}"}


def _field(field: FieldDescriptor, schemas: dict[str, Any]) -> dict[str, Any]:
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        return {"type": "object", "additionalProperties": _single(message.fields_by_name["value"], schemas)}
    single = _single(field, schemas)
    return {"type": "array", "items": single} if field.is_repeated else single


def _single(field: FieldDescriptor, schemas: dict[str, Any]) -> dict[str, Any]:
    if field.message_type is not None:
        return _reference(field.message_type, schemas)
    if field.enum_type is not None:
        return {"type": "string", "enum": [value.name for value in field.enum_type.values]}
    return _SCALARS.get(field.type, {"type": "string"})


if __name__ == "__main__":
    sys.stdout.write(json.dumps(document(), indent=1, sort_keys=True) + "\n")
