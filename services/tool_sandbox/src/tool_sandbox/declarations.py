"""Reads the tools that domains declare, and refuses a declaration that could not be kept."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from tool_sandbox import statements


class DeclarationError(Exception):
    """A declaration is wrong; the message is one line that names the file and the tool."""


@dataclass(frozen=True)
class Tool:
    """One declared tool of one domain."""

    domain: str
    name: str
    description: str
    version: str
    roles: frozenset[str]
    sql: str
    read_only: bool
    max_rows: int
    timeout_seconds: float
    parameters: dict[str, Any]
    validator: Draft202012Validator

    @property
    def names(self) -> set[str]:
        """Names of the parameters that the statement may bind."""
        return set(self.parameters["properties"])

    def problem(self, arguments: dict[str, Any]) -> str:
        """Return why the arguments are refused, without quoting their values; empty when they fit."""
        error = min(self.validator.iter_errors(arguments), key=lambda e: [str(p) for p in e.path], default=None)
        if error is None:
            return ""
        if error.validator in {"required", "additionalProperties"}:
            return str(error.message)[:200]
        return f"{'.'.join(str(part) for part in error.path)}: fails {error.validator} {error.validator_value!r}"[:200]


def load(domains: Path) -> dict[tuple[str, str], Tool]:
    """Return every declared tool by domain and name; raise DeclarationError for the first that is wrong."""
    schema = _schema(domains)
    tools: dict[tuple[str, str], Tool] = {}
    for path in sorted(domains.glob("*/tools.yaml")):
        for tool in _read(path, schema):
            if (tool.domain, tool.name) in tools:
                raise DeclarationError(f"{_short(path)}: tool {tool.name!r} is declared twice")
            tools[tool.domain, tool.name] = tool
    return tools


def _schema(domains: Path) -> Draft202012Validator:
    path = domains / "schema" / "tools.json"
    try:
        return Draft202012Validator(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise DeclarationError(f"{_short(path)}: {error}") from error


def _read(path: Path, schema: Draft202012Validator) -> Iterable[Tool]:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise DeclarationError(f"{_short(path)}: {' '.join(str(error).split())}") from error
    wrong = next(schema.iter_errors(content), None)
    if wrong is not None:
        raise DeclarationError(f"{_short(path)}: {wrong.json_path}: {wrong.message}"[:400])
    for row in content["tools"]:
        try:
            yield _tool(path.parent.name, row)
        except SchemaError as problem:
            raise DeclarationError(f"{_short(path)}: tool {row['name']!r}: parameters: {problem.message}") from problem
        except ValueError as problem:
            raise DeclarationError(f"{_short(path)}: tool {row['name']!r}: {problem}") from problem


def _tool(domain: str, row: dict[str, Any]) -> Tool:
    if row["database"] != domain:
        raise ValueError(f"database is {row['database']!r}, but a domain's tools may only use its own, {domain!r}")
    Draft202012Validator.check_schema(row["parameters"])
    tool = Tool(
        domain=domain,
        name=row["name"],
        description=row["description"],
        version=row["version"],
        roles=frozenset(row["roles"]),
        sql=row["sql"],
        read_only=row["read_only"],
        max_rows=row["max_rows"],
        timeout_seconds=row["timeout_seconds"],
        parameters=row["parameters"],
        validator=Draft202012Validator(row["parameters"]),
    )
    statements.check(tool.sql, read_only=tool.read_only, parameters=tool.names)
    return tool


def _short(path: Path) -> str:
    return "/".join(path.parts[-3:])
