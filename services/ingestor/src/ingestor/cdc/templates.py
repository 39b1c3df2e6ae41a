"""The templates that make a document of a row: sandboxed, strict, compiled once."""

import datetime as dt
import re
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from chassis.errors import InvalidArgumentError
from contracts.subjects import InvalidTokenError, token

_LONGEST = 4 * 1024 * 1024
NEVER, _LONG_AGO = dt.datetime.max.replace(tzinfo=dt.UTC), dt.datetime.fromtimestamp(0, dt.UTC)
# PostgreSQL's infinities, years of five and more digits, and years before Christ as it and as ISO 8601 write them.
_BEYOND = re.compile(r"(?P<after>infinity|\+?\d{5,}-\d\d-.*)|-infinity|-\d{4,}-.*|\d{4,}-.* BC")
_LABEL = re.compile(r"[a-z][a-z0-9_]*")
_COLUMN = re.compile(r"\s*\{\{\s*([A-Za-z_]\w*)\s*\}\}\s*")


def _finalised(value: Any) -> Any:
    """Make nothing of null; `None` is no text."""
    return "" if value is None else value


_JINJA = ImmutableSandboxedEnvironment(undefined=StrictUndefined, finalize=_finalised, autoescape=False, keep_trailing_newline=False)


class MappingError(InvalidArgumentError):
    """A row cannot be made into a document as its mapping says."""

    default_code = "mapping_failed"


class Template:
    """One compiled template and the columns that it reads."""

    def __init__(self, source: str) -> None:
        """Compile `source`; raise ValueError when it is no template."""
        try:
            self.columns = frozenset(meta.find_undeclared_variables(_JINJA.parse(source)))
            self._render: Callable[[Mapping[str, Any]], str] = _JINJA.from_string(source).render
            # Many fields are empty or the same for every row.
            self.constant = None if self.columns else self._render({}).strip()
            # Most others are the text of one column, which needs no rendering.
            alone = _COLUMN.fullmatch(source)
            self._column = alone[1] if alone and self.columns == {alone[1]} else None
        except TemplateError as error:
            raise ValueError(f"{source!r}: {error}") from error
        except Exception as error:  # one that is the same for every row is rendered here, and may raise anything
            raise ValueError(f"{source!r}: {type(error).__name__}: {error}") from error

    def render(self, row: Mapping[str, Any], field: str) -> str:
        """Return the text for a row; raise MappingError that names the field, and the column that is missing."""
        if self.constant is not None:
            return self.constant
        if missing := sorted(self.columns - row.keys()):
            raise MappingError(f"field {field!r} needs column {missing[0]!r}; the row has {sorted(row)}", code="mapping_column_missing")
        try:
            text = self._render({name: row[name] for name in self.columns}) if self._column is None else str(_finalised(row[self._column]))
        except Exception as error:  # a template calls methods of values, which may raise anything
            raise MappingError(f"field {field!r}: {error}") from error
        if len(text) > _LONGEST:
            raise MappingError(f"field {field!r} has {len(text)} characters; the limit is {_LONGEST}")
        return text.strip()


def labels_of(text: str) -> tuple[str, ...]:
    """Return the labels that a template rendered, apart by spaces or commas; raise MappingError for one that is none."""
    labels = tuple(sorted(set(text.replace(",", " ").split())))
    if wrong := [label for label in labels if not _LABEL.fullmatch(label)]:
        raise MappingError(f"field 'labels': label {wrong[0]!r} must be lower-case letters, digits and '_'")
    return labels


def tenant_of(text: str) -> str:
    """Return the tenant that a template rendered, nothing for all; raise MappingError for a name that no tenant has."""
    try:
        return text and token(text, what="tenant")
    except InvalidTokenError as error:
        raise MappingError(f"field 'tenant': {error}") from error


def moment(text: str, field: str) -> dt.datetime | None:
    """Return the time that a template rendered, UTC where it names no zone; None for nothing.

    What sources have beyond the calendar, infinities above all, is `NEVER` or 1970.
    """
    if not text:
        return None
    if beyond := _BEYOND.fullmatch(text):
        return NEVER if beyond["after"] else _LONG_AGO
    try:
        value = dt.datetime.fromisoformat(text)
        value = value if value.tzinfo else value.replace(tzinfo=dt.UTC)
        # Near the first or the last year a zone leads out of the calendar.
        value.astimezone(dt.UTC)
    except (ValueError, OverflowError) as error:
        raise MappingError(f"field {field!r}: {text!r} is no ISO 8601 time") from error
    return value
