"""Workflows as they are declared: a graph of steps, checked whole before any request meets it."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from contracts.identities import WORKFLOW_STEPS
from orchestrator.expressions import Condition, ExpressionError, Pattern, Template

KINDS = WORKFLOW_STEPS
_DEFAULT_TIMEOUT_SECONDS = 10.0
# A release may have to generate a second time.
_RELEASE_TIMEOUT_SECONDS = 60.0
_SCOPE = frozenset({"request", "caller"})


class WorkflowError(Exception):
    """A declared file cannot be kept; the message is one line that names file, step and alternatives."""


@dataclass(frozen=True)
class Step:
    """One node of the graph, with its expressions compiled."""

    id: str
    kind: str
    needs: tuple[str, ...] = ()
    # All steps that are certainly over when this one starts.
    ancestors: frozenset[str] = frozenset()
    when: Condition | None = None
    timeout_seconds: float = _DEFAULT_TIMEOUT_SECONDS
    spec: Mapping[str, Any] = field(default_factory=dict)
    texts: Mapping[str, Template] = field(default_factory=dict)
    arguments: Mapping[str, Template | Pattern] = field(default_factory=dict)


@dataclass(frozen=True)
class Budget:
    """What one run may spend."""

    model_calls: int
    tool_calls: int
    output_tokens: int


@dataclass(frozen=True)
class Workflow:
    """A checked graph of steps, in an order in which each comes after what it needs."""

    name: str
    version: str
    domain: str
    roles: frozenset[str]
    deadlines_seconds: Mapping[str, float]
    budget: Budget
    steps: Mapping[str, Step]
    sha256: str
    pins: Mapping[str, str] = field(default_factory=dict)
    # How long a released answer may be given again; 0 for never.
    cache_seconds: float = 0.0

    @property
    def release(self) -> Step | None:
        """The step that releases the answer; None for a workflow without one."""
        return next((step for step in self.steps.values() if step.kind == "release"), None)

    def of_kind(self, *kinds: str) -> Iterable[Step]:
        """Yield the steps of these kinds, in order."""
        return (step for step in self.steps.values() if step.kind in kinds)


def parse(
    content: str,
    *,
    where: str,
    domain: str,
    sha256: str,
    tools: Iterable[str] = (),
    kinds: Iterable[str] = KINDS,
    schema: Mapping[str, Any] | None = None,
) -> Workflow:
    """Return the workflow of a file's text; raise WorkflowError with one line for whatever is wrong with it."""
    try:
        declared = yaml.safe_load(content)
    except yaml.YAMLError as error:
        raise WorkflowError(f"{where}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(declared, dict) or not isinstance(declared.get("steps"), list):
        raise WorkflowError(f"{where}: not a workflow: it has no list of steps")
    steps = _ordered(declared["steps"], where, frozenset(kinds))
    _check_schema(declared, where, schema)
    compiled: dict[str, Step] = {}
    for raw in steps:
        _check_references(raw, where, {s["id"] for s in steps}, set(tools))
        compiled[raw["id"]] = _compile(raw, where, compiled)
    return Workflow(
        name=declared["name"],
        version=str(declared["version"]),
        domain=domain,
        roles=frozenset(declared["roles"]),
        deadlines_seconds=declared["deadlines_seconds"],
        budget=Budget(**declared["budget"]),
        steps=compiled,
        sha256=sha256,
        cache_seconds=float((declared.get("cache") or {}).get("ttl_s", 0)),
    )


def read_schema(path: Path) -> Mapping[str, Any] | None:
    """Return the JSON Schema of a file, or None when there is none."""
    return dict(json.loads(path.read_text())) if path.exists() else None


def _ordered(steps: list[Any], where: str, kinds: frozenset[str]) -> list[dict[str, Any]]:
    """Return the steps so that each comes after what it needs; refuse unknown kinds, unknown needs and cycles."""
    by_id: dict[str, dict[str, Any]] = {}
    for raw in steps:
        name = raw.get("id") if isinstance(raw, dict) else None
        if not isinstance(name, str) or name in by_id:
            raise WorkflowError(f"{where}: each step needs an id of its own, got {name!r}")
        if raw.get("kind") not in kinds:
            raise WorkflowError(f"{where}: step {name!r} has the unknown kind {raw.get('kind')!r}; known: {sorted(kinds)}")
        by_id[name] = raw
    for name, raw in by_id.items():
        unknown = [need for need in raw.get("needs", ()) if need not in by_id]
        if unknown:
            raise WorkflowError(f"{where}: step {name!r} needs {unknown[0]!r}, which is not a step; known: {sorted(by_id)}")
    ordered: list[dict[str, Any]] = []
    placed: set[str] = set()
    while len(ordered) < len(by_id):
        free = [raw for name, raw in by_id.items() if name not in placed and placed.issuperset(raw.get("needs", ()))]
        if not free:
            raise WorkflowError(f"{where}: steps need each other in a circle: {sorted(set(by_id) - placed)}")
        ordered += free
        placed |= {raw["id"] for raw in free}
    return ordered


def _check_schema(declared: dict[str, Any], where: str, schema: Mapping[str, Any] | None) -> None:
    if schema is None:
        return
    for error in Draft202012Validator(schema).iter_errors(declared):
        raise WorkflowError(f"{where}: {error.json_path}: {' '.join(error.message.split())[:300]}")


def _check_references(raw: dict[str, Any], where: str, ids: set[str], tools: set[str]) -> None:
    if raw["kind"] == "tool" and raw["tool"] not in tools:
        raise WorkflowError(f"{where}: step {raw['id']!r} calls the tool {raw['tool']!r}, which is not declared; known: {sorted(tools)}")
    if raw["kind"] == "release" and "when" in raw:
        raise WorkflowError(f"{where}: step {raw['id']!r} is a release, which cannot depend on a condition")
    guess = raw.get("hypothesis")
    if guess is not None and guess not in raw.get("needs", ()):
        raise WorkflowError(f"{where}: step {raw['id']!r} takes its hypothesis from {guess!r}, which is not among the steps it needs")
    for source in raw.get("from", ()):
        if source not in ids or source not in raw.get("needs", ()):
            raise WorkflowError(f"{where}: step {raw['id']!r} releases from {source!r}, which is not among the steps it needs")


def _compile(raw: dict[str, Any], where: str, before: Mapping[str, Step]) -> Step:
    """Return a step with compiled expressions, which may read nothing but what is certainly there."""
    needs = tuple(raw.get("needs", ()))
    ancestors = frozenset(needs).union(*(before[need].ancestors for need in needs))
    when = Condition(raw["when"]) if "when" in raw else None
    texts: dict[str, Template] = {key: Template(raw[key]) for key in ("text", "query") if key in raw}
    arguments: dict[str, Template | Pattern] = {
        key: Pattern(value["pattern"], value["group"]) if isinstance(value, dict) else Template(str(value))
        for key, value in raw.get("arguments", {}).items()
    }
    named: dict[str, Condition | Template | Pattern] = {**texts, **{f"arguments.{k}": v for k, v in arguments.items()}}
    if when is not None:
        named["when"] = when
    for field_name, expression in named.items():
        try:
            names = expression.compile().names
        except ExpressionError as error:
            raise WorkflowError(f"{where}: step {raw['id']!r}: {field_name!r} does not compile: {error}") from error
        if unknown := sorted(names - ancestors - _SCOPE):
            known = sorted(ancestors | _SCOPE)
            raise WorkflowError(f"{where}: step {raw['id']!r}: {field_name!r} reads {unknown[0]!r}, which it does not need; known: {known}")
    default = _RELEASE_TIMEOUT_SECONDS if raw["kind"] == "release" else _DEFAULT_TIMEOUT_SECONDS
    timeout = float(raw.get("timeout_seconds", default))
    return Step(raw["id"], raw["kind"], needs, ancestors, when, timeout, raw, texts, arguments)
