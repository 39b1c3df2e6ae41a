"""Validates JSON by schemas of strangers: nothing is fetched, no pattern backtracks, and the work has a bound."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import re2
from jsonschema import Draft202012Validator, SchemaError
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable

from chassis.errors import InvalidArgumentError

CODE = "schema_refused"
_MOST_CHARACTERS = 65_536
_DEEPEST = 32
_MOST_PARTS = 2000
_MOST_STEPS = 200_000
# Of all patterns of a schema, in RE2's instructions; of one, in bytes.
_MOST_INSTRUCTIONS = 50_000
_PATTERN_BYTES = 1 << 18
# Of a text that one step of a pattern reads.
_STEP_CHARACTERS = 64
# What finding the place that is referred to costs.
_REFERENCE_STEPS = 16
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_steps: ContextVar[list[int]] = ContextVar("steps")
Errors = Iterator[ValidationError]


class SchemaRefusedError(InvalidArgumentError):
    """A schema is none, reaches outside of itself, has a pattern without a bound on its time, or is too large."""

    default_code = CODE


class TooMuchWorkError(ValueError):
    """A text would take too many steps to validate."""


def require_own(schema: Any) -> None:
    """Refuse what is too large or deep or refers to anything but itself; cheap, raises SchemaRefusedError."""
    for whole in _objects(schema):
        for name in _REFERENCES:
            if isinstance(target := whole.get(name), str) and not target.startswith("#"):
                raise SchemaRefusedError(f"{name} must begin with '#': nothing outside of the schema is read")
    if len(json.dumps(schema)) > _MOST_CHARACTERS:
        raise SchemaRefusedError(f"a JSON Schema may have {_MOST_CHARACTERS} characters")


def _objects(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield every object of a schema; raise SchemaRefusedError for one too deep or of too many objects and lists."""
    level: list[Any] = [schema] if isinstance(schema, dict | list) else []
    parts = 0
    for _ in range(_DEEPEST):
        parts += len(level)
        if parts > _MOST_PARTS:
            raise SchemaRefusedError(f"a JSON Schema may have {_MOST_PARTS} objects and lists")
        yield from (whole for whole in level if isinstance(whole, dict))
        level = [
            part for whole in level for part in (whole.values() if isinstance(whole, dict) else whole) if isinstance(part, dict | list)
        ]
        if not level:
            return
    raise SchemaRefusedError(f"a JSON Schema may be {_DEEPEST} levels deep")


def _require_patterns(schema: Any) -> None:
    """Refuse patterns that RE2 does not know or that are too large; raise SchemaRefusedError."""
    instructions = 0
    for whole in _objects(schema):
        named = whole.get("patternProperties")
        if isinstance(named, dict) and "unevaluatedProperties" in whole:
            raise SchemaRefusedError("unevaluatedProperties beside patternProperties is not supported")
        for pattern in (whole.get("pattern"), *(named if isinstance(named, dict) else ())):
            if isinstance(pattern, str):
                instructions += _compiled(pattern).programsize
            if instructions > _MOST_INSTRUCTIONS:
                raise SchemaRefusedError("the patterns of the schema are too large together")


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _PATTERN_BYTES
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        raise SchemaRefusedError(f"the pattern {pattern[:80]!r} is not supported: no look-around, no back-references (RE2)") from error


def _spend(steps: int) -> None:
    left = _steps.get(None)
    if left is None:
        return
    left[0] -= steps
    if left[0] < 0:
        raise TooMuchWorkError("validating the text by its schema takes too many steps")


def _holds(pattern: str, text: str) -> bool:
    _spend(1 + len(text) // _STEP_CHARACTERS)
    return _compiled(pattern).search(text) is not None


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Errors:
    del schema
    if validator.is_type(instance, "string") and not _holds(pattern, instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: Mapping[str, Any], instance: Any, schema: Any) -> Errors:
    del schema
    if validator.is_type(instance, "object"):
        for pattern, part in patterns.items():
            for name in instance:
                if _holds(pattern, name):
                    yield from validator.descend(instance[name], part, path=name, schema_path=pattern)


def _additional_properties(validator: Any, allowed: Any, instance: Any, schema: Any) -> Errors:
    if not validator.is_type(instance, "object"):
        return
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    extra = [name for name in instance if name not in known and not any(_holds(pattern, name) for pattern in patterns)]
    if validator.is_type(allowed, "object"):
        for name in extra:
            yield from validator.descend(instance[name], allowed, path=name)
    elif not allowed and extra:
        yield ValidationError(f"Additional properties are not allowed ({', '.join(map(repr, extra[:5]))})")


def _unique_items(validator: Any, demanded: Any, instance: Any, schema: Any) -> Errors:
    del schema
    if demanded and validator.is_type(instance, "array") and len({_key(item) for item in instance}) < len(instance):
        yield ValidationError("the array has non-unique elements")


def _key(value: Any) -> Any:
    """Return what is equal for equal JSON: 1 is 1.0, and neither is true."""
    if isinstance(value, dict):
        return "object", frozenset((name, _key(item)) for name, item in value.items())
    if isinstance(value, list):
        return "array", tuple(_key(item) for item in value)
    return ("boolean", value) if isinstance(value, bool) else value


def _counted(name: str, keyword: Callable[[Any, Any, Any, Any], Errors | None]) -> Callable[[Any, Any, Any, Any], Errors | None]:
    least = _REFERENCE_STEPS if name in _REFERENCES else 1

    def run(validator: Any, value: Any, instance: Any, schema: Any) -> Errors | None:
        _spend(least + sum(len(part) for part in (value, instance) if isinstance(part, list | dict)))
        return keyword(validator, value, instance, schema)

    return run


_OWN = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "uniqueItems": _unique_items,
}
_KEYWORDS = {name: _counted(name, run) for name, run in {**Draft202012Validator.VALIDATORS, **_OWN}.items()}
_Validator = extend(Draft202012Validator, _KEYWORDS)  # type: ignore[no-untyped-call]


class Schema:
    """A schema that was found safe."""

    def __init__(self, content: Any) -> None:
        """Take a schema of JSON's own types; raise SchemaRefusedError for one that is none or not safe."""
        try:
            require_own(content)
            _require_patterns(content)
            Draft202012Validator.check_schema(content, format_checker=None)  # type: ignore[arg-type]
        except SchemaError as error:
            raise SchemaRefusedError(f"not a JSON Schema: {' '.join(str(error).split())[:200]}") from error
        self._validator = _Validator(content, registry=Registry())

    def validate(self, value: Any) -> None:
        """Raise ValidationError for JSON that breaks the schema, TooMuchWorkError for what cannot be judged within the bound."""
        token = _steps.set([_MOST_STEPS])
        try:
            self._validator.validate(value)
        except (RecursionError, Unresolvable) as error:
            raise TooMuchWorkError(f"the text cannot be judged by its schema: {type(error).__name__}") from error
        finally:
            _steps.reset(token)


__all__ = ["CODE", "Schema", "SchemaRefusedError", "TooMuchWorkError", "ValidationError", "require_own"]
