"""The grammar that the calls of a small model keep to."""

import json

import pytest

from chassis.errors import InternalError, InvalidArgumentError
from inference.generation import check_schema
from inference.providers.base import Job, Message, Tool, ToolChoice
from inference.tool_decoding import closed, plan, read


def test_arguments_are_held_to_a_schema_that_fetches_nothing_and_does_not_backtrack() -> None:
    """What a client declares cannot make the service read an address, or spend years on a pattern."""
    text = json.dumps({"tool": "f", "arguments": "a" * 5000 + "!"})
    with pytest.raises(InternalError, match="do not match"):
        read(text, [Tool("f", "", {"pattern": "^(a+)+$"})], finish_reason="stop")
    for schema in ({"$ref": "http://127.0.0.1:9/x"}, {"pattern": "(?=a)b"}):
        with pytest.raises(InvalidArgumentError) as refused:
            check_schema(schema)
        assert refused.value.code == "schema_refused"


def test_a_schema_is_closed_where_it_says_nothing() -> None:
    """Objects inside objects and lists too; what says itself how open it is stays, and so does what `allOf` puts together."""
    inner = {"type": "object", "properties": {"x": {"type": "integer"}}}
    schema = {
        "type": "object",
        "properties": {
            "place": inner,
            "many": {"type": "array", "items": inner},
            "free": {"type": "object"},
            "open": {**inner, "additionalProperties": True},
            "both": {**inner, "allOf": [{"required": ["y"]}]},
        },
    }

    found = closed(schema)

    assert found["additionalProperties"] is False
    assert found["properties"]["place"]["additionalProperties"] is False
    assert found["properties"]["many"]["items"]["additionalProperties"] is False
    assert found["properties"]["free"] == {"type": "object"}
    assert found["properties"]["open"]["additionalProperties"] is True
    assert found["properties"]["both"] == schema["properties"]["both"]
    assert "additionalProperties" not in inner


def test_a_property_may_have_the_name_of_a_keyword() -> None:
    """An argument that is called `items` is an argument."""
    found = closed({"properties": {"items": {"type": "string"}, "properties": {"type": "integer"}}})

    assert found == {"properties": {"items": {"type": "string"}, "properties": {"type": "integer"}}, "additionalProperties": False}


def test_a_required_call_offers_no_answer() -> None:
    """With one tool the schema is that call alone."""
    tool = Tool("stock", "", {"type": "object", "properties": {"item": {"type": "string"}}})

    found = plan(Job((Message("user", "?"),), 10, tools=(tool,), choice=ToolChoice("required")))

    assert found.schema is not None
    assert found.schema["properties"]["tool"] == {"const": "stock"}
    assert found.schema["properties"]["arguments"]["additionalProperties"] is False
