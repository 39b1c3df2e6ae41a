"""What may be run: every domain's workflows, prompts, tools and policies, with the hashes that pin a run to them."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from orchestrator.workflows import Workflow, WorkflowError, parse, read_schema


@dataclass(frozen=True)
class Prompt:
    """What the orchestrator must know of a prompt; inference renders it."""

    name: str
    sha256: str
    passthrough: bool
    schema_json: str
    max_tokens: int


@dataclass(frozen=True)
class Catalogue:
    """Everything declared, by name."""

    workflows: Mapping[str, Workflow]
    prompts: Mapping[str, Prompt]
    # What each override of a domain's policy sets: domain, then override id.
    overrides: Mapping[str, Mapping[str, Mapping[str, str]]]
    # JSON Schemas of tool arguments: domain, then tool.
    tools: Mapping[str, Mapping[str, Mapping[str, Any]]]
    # Which model stands behind which tier; empty where nothing is declared.
    models_sha256: str = ""
    # Domains whose hard rules also look at the answer before it leaves.
    rules_at_release: frozenset[str] = frozenset()
    # Reasons for which a domain's policy has a rule: what is blocked for one of them goes to a person.
    reviewed_codes: Mapping[str, frozenset[str]] = field(default_factory=dict)


def load(repository_dir: Path) -> Catalogue:
    """Read every domain; raise WorkflowError with one line for the first file that cannot be kept."""
    domains = repository_dir / "domains"
    folders = sorted(path.parent for path in domains.glob("*/domain.yaml"))
    if not folders:
        raise WorkflowError(f"{domains}: no domain is declared there; is STRATA_HOME right?")
    prompts = {prompt.name: prompt for folder in folders for prompt in _prompts(folder)}
    tools = {folder.name: _tools(folder / "tools.yaml") for folder in folders}
    collections = {name for folder in folders for name in _collections(folder)}
    overrides = {folder.name: _overrides(folder / "policy.yaml") for folder in folders}
    schema = read_schema(domains / "schema" / "workflow.json")
    workflows: dict[str, Workflow] = {}
    for folder in folders:
        for path in sorted(folder.glob("workflows/*.yaml")):
            content = path.read_bytes()
            where = str(path.relative_to(repository_dir))
            workflow = parse(
                content.decode(), where=where, domain=folder.name, sha256=_digest(content), tools=tools[folder.name], schema=schema
            )
            if workflow.release is None:
                raise WorkflowError(f"{where}: no step releases the answer")
            if workflow.name in workflows:
                raise WorkflowError(f"{where}: a workflow named {workflow.name!r} is declared twice")
            _check_prompts(workflow, where, prompts)
            _check_collections(workflow, where, collections)
            pins = _pins(workflow, repository_dir, folder, prompts, overrides[folder.name])
            workflows[workflow.name] = replace(workflow, pins=pins)
    models = repository_dir / "deploy" / "config" / "models.yaml"
    at_release = frozenset(folder.name for folder in folders if _rules_at_release(folder / "policy.yaml"))
    reviewed = {folder.name: _reasons(folder / "policy.yaml") for folder in folders}
    return Catalogue(workflows, prompts, overrides, tools, _digest(models.read_bytes()) if models.exists() else "", at_release, reviewed)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _prompts(folder: Path) -> list[Prompt]:
    prompts = []
    for path in sorted(folder.glob("prompts/*.yaml")):
        content = path.read_bytes()
        declared = yaml.safe_load(content)
        schema = declared.get("schema")
        prompts.append(
            Prompt(
                name=declared["name"],
                sha256=_digest(content),
                passthrough=bool(declared.get("passthrough")),
                schema_json=json.dumps(schema) if schema else "",
                max_tokens=int(declared.get("max_tokens", 256)),
            )
        )
    return prompts


def _tools(path: Path) -> dict[str, Mapping[str, Any]]:
    declared = yaml.safe_load(path.read_text()) if path.exists() else {}
    return {tool["name"]: tool["parameters"] for tool in declared.get("tools", ())}


def _overrides(path: Path) -> dict[str, Mapping[str, str]]:
    declared = yaml.safe_load(path.read_text()) if path.exists() else {}
    return {rule["id"]: rule["set"] for rule in declared.get("overrides", ())}


def _rules_at_release(path: Path) -> bool:
    declared = yaml.safe_load(path.read_text()) if path.exists() else {}
    return any(rule.get("at") == "release" for rule in declared.get("escalation") or ())


def _reasons(path: Path) -> frozenset[str]:
    declared = yaml.safe_load(path.read_text()) if path.exists() else {}
    return frozenset(rule["reason"] for rule in declared.get("escalation") or ())


def _check_prompts(workflow: Workflow, where: str, prompts: Mapping[str, Prompt]) -> None:
    for step in workflow.of_kind("generate", "hypothesis"):
        if step.spec["task"] not in prompts:
            task = step.spec["task"]
            raise WorkflowError(f"{where}: step {step.id!r} names the prompt {task!r}, which is not there; known: {sorted(prompts)}")


def _collections(folder: Path) -> list[str]:
    declared = yaml.safe_load((folder / "domain.yaml").read_text()) or {}
    return [entry["name"] for entry in declared.get("collections") or ()]


def _check_collections(workflow: Workflow, where: str, collections: set[str]) -> None:
    for step in workflow.of_kind("retrieve"):
        if unknown := sorted(set(step.spec["collections"]) - collections):
            raise WorkflowError(f"{where}: step {step.id!r} searches {unknown}, which no domain declares; known: {sorted(collections)}")


def _pins(
    workflow: Workflow, repository_dir: Path, folder: Path, prompts: Mapping[str, Prompt], overrides: Mapping[str, Mapping[str, str]]
) -> dict[str, str]:
    """Return the hashes of all files that decide what a run of this workflow does."""
    pins = {"workflow": workflow.sha256}
    adapters = {rule["adapter"] for rule in overrides.values() if "adapter" in rule}
    for step in workflow.of_kind("generate", "hypothesis"):
        pins[f"prompt:{step.spec['task']}"] = prompts[step.spec["task"]].sha256
        adapters |= {step.spec["adapter"]} if "adapter" in step.spec else set()
    if (folder / "policy.yaml").exists():
        pins["policy"] = _digest((folder / "policy.yaml").read_bytes())
    for adapter in sorted(adapters):
        for name in ("manifest.json", "adapter_config.json"):
            path = repository_dir / "models" / "adapters" / adapter / name
            if path.exists():
                pins[f"adapter:{adapter}"] = _digest(path.read_bytes())
                break
    return pins
