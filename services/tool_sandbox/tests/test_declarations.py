"""What may be declared, and how a bad declaration is refused."""

import sys
from pathlib import Path

import pytest

from tool_sandbox.databases import Database, build
from tool_sandbox.declarations import DeclarationError, load
from tool_sandbox.main import main

from .conftest import REPOSITORY, TOOLS, tool, write_domain


def test_the_shipped_domains_load_and_fit_their_tables(tmp_path: Path) -> None:
    """Every tool of healthcare and retail is accepted and prepares on the tables that ship."""
    tools = load(REPOSITORY / "domains")

    assert {domain for domain, _ in tools} == {"healthcare", "retail"}
    for domain in ("healthcare", "retail"):
        build(REPOSITORY / "domains" / domain / "tables.sql", tmp_path / f"{domain}.db")
    for declared in tools.values():
        Database(tmp_path / f"{declared.domain}.db").prepare(declared)


@pytest.mark.parametrize(
    ("sql", "read_only", "reason"),
    [
        ("DELETE FROM things", True, "must be one of SELECT"),
        ("SELECT name FROM things", False, "must be one of INSERT"),
        ("SELECT 1; DROP TABLE things", True, "one statement, found 2"),
        ("SELECT name FROM things WHERE name = :nobody", True, "sql binds ['nobody']"),
        ("SELECT name FROM things WHERE name = ?", True, "sql binds ['?']"),
        ("PRAGMA table_info(things)", True, "must be one of SELECT"),
        ("ATTACH 'other.db' AS other", False, "must be one of INSERT"),
        ("SELECT load_extension('evil')", True, "may not call load_extension"),
        ("SELECT FROM WHERE ((", True, "cannot be parsed"),
        ("", True, "should be non-empty"),
    ],
)
def test_a_statement_of_another_kind_is_refused(tmp_path: Path, sql: str, reason: str, *, read_only: bool) -> None:
    """The refusal is one line that names the file, and the tool or the place."""
    domains = write_domain(tmp_path, [tool("odd", sql, {}, read_only=read_only)])

    with pytest.raises(DeclarationError, match=r"domains/shop/tools\.yaml: ") as refusal:
        load(domains)

    assert reason in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"timeout_seconds": 0}, "$.tools[0].timeout_seconds"),
        ({"roles": []}, "$.tools[0].roles"),
        ({"database": "bank"}, "a domain's tools may only use its own"),
        ({"colour": "red"}, "colour"),
        ({"parameters": {"type": "object", "properties": {}}}, "additionalProperties"),
        ({"parameters": {"type": "object", "additionalProperties": False, "properties": {"name": {"type": "word"}}}}, "word"),
    ],
)
def test_a_declaration_must_be_complete(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    """A missing limit, an open schema, an unknown field or another domain's database is refused."""
    with pytest.raises(DeclarationError) as refusal:
        load(write_domain(tmp_path, [{**TOOLS[0], **change}]))

    assert reason in str(refusal.value)


def test_a_tool_is_declared_once(tmp_path: Path) -> None:
    """Two tools of one name in a domain are refused."""
    with pytest.raises(DeclarationError, match="declared twice"):
        load(write_domain(tmp_path, [TOOLS[0], {**TOOLS[0], "version": "2"}]))


def test_a_statement_that_does_not_fit_the_tables_is_refused(tmp_path: Path) -> None:
    """A column that no table has is found at start, not at the first call."""
    domains = write_domain(tmp_path, [tool("odd", "SELECT colour FROM things", {})])
    build(domains / "shop" / "tables.sql", tmp_path / "shop.db")

    with pytest.raises(DeclarationError, match="tool 'odd': no such column: colour"):
        Database(tmp_path / "shop.db").prepare(load(domains)["shop", "odd"])


def test_broken_tables_leave_no_half_built_file(tmp_path: Path) -> None:
    """When the tables cannot be created the state folder stays empty."""
    domains = write_domain(tmp_path, tables="CREATE TABLE things (thing_id TEXT); INSERT INTO nowhere VALUES (1);")
    target = tmp_path / "state" / "shop.db"

    with pytest.raises(DeclarationError, match=r"shop/tables\.sql: no such table: nowhere"):
        build(domains / "shop" / "tables.sql", target)

    assert list(target.parent.iterdir()) == []


def test_the_process_ends_with_one_readable_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service with a bad declaration does not start, and says why without a traceback."""
    write_domain(tmp_path, [tool("odd", "DROP TABLE things", {})])
    monkeypatch.setattr(sys, "argv", ["tool_sandbox"])
    monkeypatch.setenv("STRATA_HOME", str(tmp_path))
    monkeypatch.setenv("STRATA_STATE_DIR", str(tmp_path / "state"))

    with pytest.raises(SystemExit) as end:
        main()

    assert str(end.value).startswith("tool_sandbox: ")
    assert "must be one of SELECT" in str(end.value)
