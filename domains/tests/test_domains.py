"""Every domain is a folder of data that fits together: schemas, tables, tools, documents and workflows."""

import gzip
import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jsonschema import Draft202012Validator, FormatChecker

ROOT = Path(__file__).parent.parent
DOMAINS = sorted(path.parent for path in ROOT.glob("*/domain.yaml"))
WORKFLOWS = sorted(ROOT.glob("*/workflows/*.yaml"))
TOOL_FILES = sorted(ROOT.glob("*/tools.yaml"))
JINJA = ImmutableSandboxedEnvironment(undefined=StrictUndefined)
BY_SCHEMA = {
    "domain": sorted(ROOT.glob("*/domain.yaml")),
    "workflow": WORKFLOWS,
    "tools": TOOL_FILES,
    "policy": sorted(ROOT.glob("*/policy.yaml")),
    "prompt": sorted(ROOT.glob("*/prompts/*@v*.yaml")),
}


def name_of(value: object) -> str | None:
    """Name a parametrised case by its file."""
    return str(value.relative_to(ROOT)) if isinstance(value, Path) else None


def read(path: Path) -> Any:
    """Return the content of a YAML file; a date stays the text that is written."""
    loader = yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader
    return json.loads(json.dumps(yaml.load(path.read_text(), Loader=loader), default=str))  # noqa: S506 - a safe loader


def validator(kind: str) -> Draft202012Validator:
    """Return the validator of one kind of file."""
    schema = json.loads((ROOT / "schema" / f"{kind}.json").read_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema, format_checker=FormatChecker())


def lines(path: Path) -> Iterator[Any]:
    """Yield the objects of a JSONL file, gzipped or not."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def collections() -> list[tuple[Path, dict[str, Any]]]:
    """Return every collection with its domain's folder."""
    return [(domain, row) for domain in DOMAINS for row in read(domain / "domain.yaml")["collections"]]


def fed(domain: Path, name: str) -> bool:
    """Return whether a collection comes from change events alone."""
    file = domain / "sources.yaml"
    sources = read(file)["sources"] if file.exists() else []
    return any(table["collection"] == name for source in sources for table in source["tables"].values())


@pytest.mark.parametrize(("kind", "path"), [(kind, path) for kind, paths in BY_SCHEMA.items() for path in paths], ids=name_of)
def test_a_file_matches_its_schema(kind: str, path: Path) -> None:
    """Every YAML file of a domain validates against the schema of its kind."""
    errors = [f"{error.json_path}: {error.message}" for error in validator(kind).iter_errors(read(path))]

    assert not errors


def test_the_two_worked_domains_and_the_general_one_are_there() -> None:
    """Healthcare and retail ship with the product, beside the general assistant."""
    assert {path.name for path in DOMAINS} == {"general", "healthcare", "retail"}
    assert all(read(path / "domain.yaml")["name"] == path.name for path in DOMAINS)


def test_a_role_means_the_same_everywhere() -> None:
    """No two domains declare the same role or collection, so a key's role names one set of permissions and labels."""
    for part in ("roles", "collections"):
        names = [row["name"] for domain in DOMAINS for row in read(domain / "domain.yaml")[part]]
        assert len(names) == len(set(names))


@pytest.mark.parametrize(("domain", "collection"), collections(), ids=lambda v: v["name"] if isinstance(v, dict) else v.name)
def test_every_document_has_a_licence_and_a_date(domain: Path, collection: dict[str, Any]) -> None:
    """Each line fits the schema, no version occurs twice, anchored documents name theirs, and fluid ones say that they are invented."""
    path = domain / collection["path"]
    check, seen = validator("document"), set[tuple[str, str]]()
    for row in lines(path):
        check.validate(row)
        key = (row["id"], row["version"])
        assert key not in seen
        seen.add(key)
        if collection["kind"] == "anchored":
            assert row["version"]
            assert row["effective_from"]
        else:
            assert row["metadata"]["invented"]
    assert bool(seen) != fed(domain, collection["name"])
    assert path.stat().st_size < 1_500_000
    assert path.name in (domain / "SOURCES.md").read_text()


@pytest.mark.parametrize("path", TOOL_FILES, ids=name_of)
def test_every_statement_prepares_against_the_tables(path: Path) -> None:
    """The SQL of each tool compiles on the domain's own tables, and its parameters are declared."""
    database = sqlite3.connect(":memory:")
    database.execute("PRAGMA foreign_keys = ON")
    database.executescript((path.parent / "tables.sql").read_text())
    roles = {role["name"] for role in read(path.parent / "domain.yaml")["roles"]}
    for tool in read(path)["tools"]:
        Draft202012Validator.check_schema(tool["parameters"])
        names = set(tool["parameters"]["properties"])
        assert set(re.findall(r":([a-z_]+)", tool["sql"])) <= names | {"call_id"}, tool["name"]
        database.execute("EXPLAIN " + tool["sql"], dict.fromkeys([*names, "call_id"]))
        assert set(tool["roles"]) <= roles, tool["name"]
        assert tool["database"] == path.parent.name


@pytest.mark.parametrize("path", WORKFLOWS, ids=name_of)
def test_the_steps_of_a_workflow_fit_together(path: Path) -> None:
    """Every name in `needs` and `from` is an earlier step, the release waits for all it may release and comes last."""
    workflow = read(path)
    seen: set[str] = set()
    for step in workflow["steps"]:
        assert set(step.get("needs", [])) <= seen, step["id"]
        assert step["id"] not in seen
        seen.add(step["id"])
    last = workflow["steps"][-1]
    assert last["kind"] == "release"
    assert set(last["from"]) <= set(last["needs"])
    assert [step["kind"] for step in workflow["steps"]].count("release") == 1
    assert workflow["name"] == path.stem


@pytest.mark.parametrize("path", WORKFLOWS, ids=name_of)
def test_a_workflow_names_only_what_exists(path: Path) -> None:
    """Tools with their arguments, collections, domains and roles are declared, and every tool is open to a role of the workflow."""
    workflow, domain = read(path), read(path.parent.parent / "domain.yaml")
    tools_file = path.parent.parent / "tools.yaml"
    tools = {tool["name"]: tool for tool in read(tools_file)["tools"]} if tools_file.exists() else {}
    known_roles = {role["name"] for folder in DOMAINS for role in read(folder / "domain.yaml")["roles"]}
    assert set(workflow["roles"]) <= known_roles
    for step in workflow["steps"]:
        if step["kind"] == "tool":
            tool = tools[step["tool"]]
            assert set(step["arguments"]) <= set(tool["parameters"]["properties"])
            assert set(tool["parameters"].get("required", [])) <= set(step["arguments"])
            assert set(workflow["roles"]) & set(tool["roles"])
        if step["kind"] == "retrieve":
            assert set(step["collections"]) <= {row["name"] for row in domain["collections"]}
        if step["kind"] == "route":
            assert step["domain"] == domain["name"]


@pytest.mark.parametrize("path", [*WORKFLOWS, *BY_SCHEMA["policy"]], ids=name_of)
def test_every_expression_compiles(path: Path) -> None:
    """Conditions, templates and patterns are valid before any request meets them."""
    content = read(path)
    rules = [*content.get("steps", []), *content.get("overrides", []), *content.get("escalation", [])]
    for rule in rules:
        if "when" in rule:
            JINJA.compile_expression(rule["when"])
        texts = [rule.get("text", ""), rule.get("query", "")]
        for argument in rule.get("arguments", {}).values():
            if isinstance(argument, dict):
                assert re.compile(argument["pattern"]).groups >= argument["group"]
            else:
                texts.append(argument)
        for text in texts:
            JINJA.from_string(text)


def test_samples_cover_what_the_demo_must_show() -> None:
    """At least eight requests: a refusal, a redaction, an escalation, a tool call, an abstention, a stream and citations."""
    rows = [row for domain in DOMAINS for row in lines(domain / "samples.jsonl")]
    for row in rows:
        validator("sample").validate(row)
    expectations = [row["expect"] for row in rows]
    assert len({row["name"] for row in rows}) == len(rows) >= 8
    assert {"completed", "pending_review", "abstained", "blocked"} == {e["status"] for e in expectations}
    assert any(e.get("absent") for e in expectations)
    assert {e["tool"] for e in expectations if "tool" in e} >= {"stock_by_store", "loyalty_points", "refill_status"}
    assert sum(bool(e.get("has_citations")) for e in expectations) >= 3
    assert any(row["request"].get("stream") for row in rows)


def test_a_sample_names_a_role_and_a_workflow_that_exist() -> None:
    """The demo can create the key that each sample needs and call the workflow that it names."""
    workflows = {path.stem: set(read(path)["roles"]) for path in WORKFLOWS}
    for domain in DOMAINS:
        intents = set(read(domain / "domain.yaml")["intents"])
        for row in lines(domain / "samples.jsonl"):
            assert row["role"] in workflows[row["request"]["model"]]
            assert row["expect"].get("intent") in {None, *intents}
