"""A domain of its own for the tests: one slow tool, one that fails, one that writes, one that reads."""

from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[3]
SCHEMA = REPOSITORY / "domains" / "schema" / "tools.json"
TABLES = """
CREATE TABLE things (thing_id TEXT PRIMARY KEY, name TEXT NOT NULL, taken_by TEXT);
INSERT INTO things VALUES ('T-1', 'chair', NULL), ('T-2', 'table', NULL), ('T-3', 'lamp', NULL);
"""


def tool(name: str, sql: str, properties: dict[str, object], *, read_only: bool = True, **other: object) -> dict[str, object]:
    """Return a declaration as it stands in tools.yaml."""
    parameters = {"type": "object", "additionalProperties": False, "properties": properties, "required": sorted(properties)}
    base = {"name": name, "description": name, "version": "1", "roles": ["clerk"], "database": "shop", "read_only": read_only}
    return {**base, "idempotent": True, "max_rows": 2, "timeout_seconds": 2.0, "parameters": parameters, "sql": sql, **other}


TEXT = {"type": "string", "maxLength": 40}
TOOLS = [
    tool("find_things", "SELECT thing_id, name FROM things WHERE instr(name, :name) > 0 ORDER BY thing_id", {"name": TEXT}),
    tool(
        "take_thing",
        "UPDATE things SET taken_by = :who WHERE thing_id = :thing_id AND taken_by IS NULL RETURNING thing_id",
        {"who": TEXT, "thing_id": {"type": "string", "pattern": "^T-[0-9]+$"}},
        read_only=False,
    ),
    tool(
        "count_for_ever",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) AS c FROM n",
        {},
        timeout_seconds=0.3,
    ),
    tool("break_down", "SELECT abs(-9223372036854775808) AS overflow FROM things", {}, roles=["clerk", "manager"]),
]


def write_domain(folder: Path, tools: list[dict[str, object]] | None = None, tables: str = TABLES) -> Path:
    """Write a domain `shop` under `folder` and return the folder of domains."""
    domains = folder / "domains"
    (domains / "schema").mkdir(parents=True, exist_ok=True)
    (domains / "schema" / "tools.json").write_text(SCHEMA.read_text())
    (domains / "shop").mkdir(exist_ok=True)
    (domains / "shop" / "tables.sql").write_text(tables)
    (domains / "shop" / "tools.yaml").write_text(yaml.safe_dump({"tools": TOOLS if tools is None else tools}))
    return domains


@pytest.fixture
def domains(tmp_path: Path) -> Path:
    """The folder of domains with the test's own domain in it."""
    return write_domain(tmp_path)
