"""Holds an answer to the JSON Schema that was promised."""

import json
from functools import lru_cache
from typing import ClassVar

from chassis.json_schemas import Schema, SchemaRefusedError, TooMuchWorkError, ValidationError
from guardrail.checks.base import CLEAR, Answer, Decision, Finding, OnError


@lru_cache(maxsize=64)
def schema_of(text: str) -> Schema:
    """Return the schema that `text` holds, `{}` being any JSON object; raise SchemaRefusedError for one that is none or not safe."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SchemaRefusedError(f"schema_json is not JSON: {type(error).__name__}") from error
    return Schema({"type": "object"} if content == {} else content)


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
            schema_of(subject.schema).validate(json.loads(subject.released + subject.text))
        except ValidationError as error:
            return Finding(1.0, Decision.REGENERATE, "schema_invalid", f"{error.json_path} breaks {error.validator!r}")
        except TooMuchWorkError as error:
            return Finding(1.0, Decision.BLOCK, "schema_too_costly", str(error))
        except (ValueError, RecursionError):
            return Finding(1.0, Decision.REGENERATE, "schema_invalid", "not JSON")
        return CLEAR
