"""Fields that stand before a text or in a file beside it, in YAML that cannot grow when it is read."""

import datetime as dt
from typing import Any

import yaml

from ingestor.parsing.parsed import unreadable

_LONGEST = 64 * 1024
_NUMBERS = frozenset({"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"})


class _PlainLoader(yaml.SafeLoader):
    """Refuses aliases, with which a few lines stand for gigabytes, and leaves numbers as they are written: version 1.10 is not 1.1."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        return super().compose_node(parent, index)


_PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _NUMBERS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def fields(text: str) -> dict[str, Any]:
    """Return the fields of a YAML text, dates as text; raise UnparsableError for anything but a mapping."""
    if len(text) > _LONGEST:
        raise unreadable(f"the fields have {len(text)} characters; the limit is {_LONGEST}")
    try:
        found = yaml.load(text, Loader=_PlainLoader)  # noqa: S506 - a safe loader with less
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise unreadable(f"the fields are no YAML: {' '.join(str(error).split())}") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise unreadable("the fields must be a mapping")
    return {str(name): _plain(value) for name, value in found.items()}


def split(text: str) -> tuple[dict[str, Any], str]:
    """Return the fields of a front matter, and the text after it."""
    if not text.startswith("---\n"):
        return {}, text
    head, found, rest = text[4:].partition("\n---\n")
    if not found:
        head, found, rest = text[4:].partition("\n---")
        if rest.strip() or not found:
            return {}, text
    return fields(head), rest


def _plain(value: Any) -> Any:
    """Return a value of YAML as one of JSON."""
    if isinstance(value, dict):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(part) for part in value]
    if isinstance(value, dt.date | dt.datetime):
        return value.isoformat()
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)
