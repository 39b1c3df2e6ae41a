"""Schemas of strangers fetch nothing and cost a bounded time."""

import time
from typing import Any

import pytest

from chassis.json_schemas import Schema, SchemaRefusedError, TooMuchWorkError, ValidationError, require_own


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "string", "pattern": "^[a-z]{2,5}$"}, "abc", "abc1"),
        ({"patternProperties": {"^n_": {"type": "integer"}}, "additionalProperties": False}, {"n_a": 1}, {"m": 1}),
        ({"patternProperties": {"^n_": {"type": "integer"}}, "additionalProperties": {"type": "string"}}, {"n_a": 1, "m": "x"}, {"m": 1}),
        ({"uniqueItems": True}, [1, True, "1", {"a": 1}, ["a"]], [{"a": [1]}, 2, {"a": [1.0]}]),
        ({"$defs": {"n": {"type": "integer"}}, "items": {"$ref": "#/$defs/n"}}, [1, 2], ["1"]),
        ({"properties": {"$ref": {"type": "string"}, "pattern": {"type": "string"}}}, {"$ref": "x"}, {"pattern": 1}),
    ],
)
def test_schemas_say_what_they_said(schema: dict[str, Any], good: Any, bad: Any) -> None:
    """What has an own implementation here decides as the standard does."""
    Schema(schema).validate(good)
    with pytest.raises(ValidationError):
        Schema(schema).validate(bad)


def _nested(levels: int) -> dict[str, Any]:
    return {"items": _nested(levels - 1)} if levels else {}


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "http://127.0.0.1:9/schema"},
        {"properties": {"a": {"items": [{"$ref": "file:///etc/passwd"}]}}},
        {"allOf": [{"$dynamicRef": "other.json#x"}]},
        {"pattern": "(?=a)b"},
        {"patternProperties": {r"(a)\1": {}}},
        {"allOf": [{"pattern": f"^.{{1,400}}{n}"} for n in range(40)]},
        {"patternProperties": {"a": {}}, "unevaluatedProperties": False},
        {"enum": ["x" * 70_000]},
        {"type": "no such type"},
        _nested(40),
    ],
)
def test_what_is_not_safe_is_refused(schema: dict[str, Any]) -> None:
    """References to elsewhere, patterns that backtrack, too much and too deep have one error with one code."""
    with pytest.raises(SchemaRefusedError) as refused:
        Schema(schema)
    assert refused.value.code == "schema_refused"


def test_a_reference_within_is_safe() -> None:
    """The quick look that the gateway takes lets a schema of definitions pass, and its references are followed."""
    schema = {"$defs": {"n": {"type": "integer"}}, "items": {"$ref": "#/$defs/n"}}
    require_own(schema)
    Schema(schema).validate([1, 2])
    with pytest.raises(ValidationError):
        Schema(schema).validate([1, "2"])


def _doubling(levels: int) -> dict[str, Any]:
    return {"$defs": {f"l{n}": {"allOf": [{"$ref": f"#/$defs/l{n + 1}"}] * 2} for n in range(levels)} | {f"l{levels}": {"type": "string"}},
            "$ref": "#/$defs/l0"}  # fmt: skip


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (_doubling(24), "x"),
        ({"$ref": "#"}, 1),
        ({"$ref": "#/$defs/nothing"}, 1),
        ({"items": {"enum": list(range(9000))}}, ["x"] * 40_000),
        ({"allOf": [{"pattern": f"^[a-y]*{n}$"} for n in range(1000)]}, "z" * 100_000),
    ],
)
def test_the_work_has_a_bound(schema: dict[str, Any], value: Any) -> None:
    """A small schema that means a great deal of work ends with an error within seconds of the processor."""
    started = time.process_time()
    with pytest.raises((TooMuchWorkError, ValidationError)):
        Schema(schema).validate(value)
    assert time.process_time() - started < 10


@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(a|a)*$", "(.*a){12}$"])
def test_no_pattern_backtracks(pattern: str) -> None:
    """Patterns that take others years judge a hundred thousand letters at once."""
    started = time.process_time()
    with pytest.raises(ValidationError):
        Schema({"pattern": pattern}).validate("a" * 100_000 + "!")
    assert time.process_time() - started < 10
