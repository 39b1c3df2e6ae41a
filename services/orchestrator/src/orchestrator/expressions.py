"""Conditions and templates of workflows: Jinja in a sandbox, compiled once when a workflow is loaded."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jinja2 import StrictUndefined, TemplateError, meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from chassis.errors import InternalError

# The result is a text for people and models, never HTML.
_ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
Scope = Mapping[str, Any]


class ExpressionError(ValueError):
    """An expression cannot be compiled."""


@dataclass(frozen=True)
class Condition:
    """A boolean over a run's scope."""

    source: str

    @cached_property
    def names(self) -> frozenset[str]:
        """Names that the expression reads."""
        return _names("{{ " + self.source + " }}")

    @cached_property
    def _compiled(self) -> Any:
        return _ENVIRONMENT.compile_expression(self.source)

    def compile(self) -> "Condition":
        """Return itself, compiled; raise ExpressionError for a wrong syntax."""
        try:
            _ = self._compiled, self.names
        except TemplateError as error:
            raise ExpressionError(str(error)) from error
        return self

    def holds(self, scope: Scope) -> bool:
        """Return whether the condition is true; raise InternalError when it cannot be evaluated."""
        try:
            return bool(self._compiled(**scope))
        except (TemplateError, TypeError, ValueError, ArithmeticError) as error:
            raise InternalError(f"condition {self.source!r}: {error}") from error


@dataclass(frozen=True)
class Template:
    """A text with places for a run's values."""

    source: str

    @cached_property
    def names(self) -> frozenset[str]:
        """Names that the template reads."""
        return _names(self.source)

    @cached_property
    def _compiled(self) -> Any:
        return _ENVIRONMENT.from_string(self.source)

    def compile(self) -> "Template":
        """Return itself, compiled; raise ExpressionError for a wrong syntax."""
        try:
            _ = self._compiled, self.names
        except TemplateError as error:
            raise ExpressionError(str(error)) from error
        return self

    def render(self, scope: Scope) -> str:
        """Return the text; raise InternalError when a value is missing."""
        try:
            return str(self._compiled.render(scope))
        except (TemplateError, TypeError, ValueError, ArithmeticError) as error:
            raise InternalError(f"template: {error}") from error


@dataclass(frozen=True)
class Pattern:
    """A value that a regular expression finds in the message."""

    source: str
    group: int

    names = frozenset[str]()

    @cached_property
    def _compiled(self) -> re.Pattern[str]:
        return re.compile(self.source)

    def compile(self) -> "Pattern":
        """Return itself, compiled; raise ExpressionError for a wrong syntax or a group that is not there."""
        try:
            groups = self._compiled.groups
        except re.error as error:
            raise ExpressionError(str(error)) from error
        if self.group > groups:
            raise ExpressionError(f"the pattern has {groups} groups, not {self.group}")
        return self

    def render(self, scope: Scope) -> str:
        """Return what the group matched in the message, or nothing."""
        match = self._compiled.search(str(scope["request"]["message"]))
        return (match[self.group] or "") if match else ""


def _names(source: str) -> frozenset[str]:
    tree = _ENVIRONMENT.parse(source)
    # A name that is set in one branch counts as undeclared in the whole template.
    stored = {name.name for name in tree.find_all(nodes.Name) if name.ctx != "load"}
    return frozenset(meta.find_undeclared_variables(tree) - stored)
