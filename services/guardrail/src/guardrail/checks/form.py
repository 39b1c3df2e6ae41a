"""Holds an answer to the JSON Schema that was promised."""

import json
from functools import lru_cache
from typing import ClassVar

from jsonschema import Draft202012Validator, SchemaError
from jsonschema.exceptions import ValidationError

from chassis.errors import InvalidArgumentError
from guardrail.checks.base import CLEAR, Answer, Decision, Finding, OnError


@lru_cache(maxsize=64)
def validator(schema: str) -> Draft202012Validator:
    """Return a validator of `schema`, `{}` being any JSON object; raise InvalidArgumentError for a schema that is none."""
    try:
        content = json.loads(schema) or {"type": "object"}
        Draft202012Validator.check_schema(content)
    except (ValueError, SchemaError) as error:
        raise InvalidArgumentError(f"schema_json is not a JSON Schema: {' '.join(str(error).split())[:200]}") from error
    return Draft202012Validator(content)


class FormCheck:
    """Objects to a finished text that is not JSON of its schema."""

    name: ClassVar[str] = "form"
    cheap: ClassVar[bool] = True
    version = "1"
    threshold = 1.0
    budget_ms = 1000.0
    on_error: OnError = "block"

    def run(self, subject: Answer, /) -> Finding:
        """Judge the whole text with its last window; earlier windows cannot be judged alone."""
        if not (subject.schema and subject.final and subject.by_model):
            return CLEAR
        try:
            validator(subject.schema).validate(json.loads(subject.released + subject.text))
        except ValidationError as error:
            return Finding(1.0, Decision.REGENERATE, "schema_invalid", f"{error.json_path} breaks {error.validator!r}")
        except ValueError:
            return Finding(1.0, Decision.REGENERATE, "schema_invalid", "not JSON")
        return CLEAR
