"""The SQLite file of a domain: built once from its tables, read without the right to write, written with a memory of each call."""

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chassis.errors import ConflictError
from tool_sandbox.declarations import DeclarationError, Tool
from tool_sandbox.failures import ToolFailedError, ToolTimeoutError
from tool_sandbox.statements import CALL_ID, authorizer

_STEPS_BETWEEN_LOOKS = 500
_MEMORY = """
CREATE TABLE strata_effects (
    tenant TEXT NOT NULL, call_id TEXT NOT NULL, tool TEXT NOT NULL, arguments_sha256 TEXT NOT NULL, result TEXT NOT NULL,
    PRIMARY KEY (tenant, call_id)
);
"""


@dataclass(frozen=True)
class Outcome:
    """What a statement gave."""

    rows: tuple[dict[str, Any], ...]
    changed: int = 0
    truncated: bool = False
    replayed: bool = False


@dataclass(frozen=True)
class Effect:
    """Which call a write belongs to; the same call again is not executed again."""

    tenant: str
    call_id: str


def digest(arguments: dict[str, Any]) -> str:
    """Return the SHA-256 of the arguments, whatever their order."""
    return hashlib.sha256(json.dumps(arguments, sort_keys=True).encode()).hexdigest()


def build(tables: Path, target: Path) -> None:
    """Create `target` from a file of SQL if it is missing, whole or not at all."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(temporary)) as connection:
            connection.execute("PRAGMA foreign_keys = ON")
            connection.executescript(tables.read_text() + _MEMORY)
    except (OSError, sqlite3.Error) as error:
        temporary.unlink(missing_ok=True)
        raise DeclarationError(f"{'/'.join(tables.parts[-3:])}: {error}") from error
    temporary.replace(target)


class Database:
    """Runs the statements of one domain's tools."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def prepare(self, tool: Tool) -> None:
        """Raise DeclarationError when the tool's statement does not fit the tables."""
        try:
            with self._opened(tool, time.monotonic() + tool.timeout_seconds) as connection:
                connection.set_authorizer(None)
                connection.execute("EXPLAIN " + tool.sql, dict.fromkeys([*tool.names, CALL_ID]))
        except sqlite3.Error as error:
            raise DeclarationError(f"domains/{tool.domain}/tools.yaml: tool {tool.name!r}: {error}") from error

    def run(self, tool: Tool, arguments: dict[str, Any], *, effect: Effect, seconds: float) -> Outcome:
        """Run a tool within `seconds`; a write is remembered under its call in the same transaction."""
        until = time.monotonic() + seconds
        bound = {**dict.fromkeys(tool.names), **arguments, CALL_ID: effect.call_id}
        with _told_plainly(tool, until), self._opened(tool, until) as connection:
            if tool.read_only:
                return _fetch(connection, tool, bound)
            return _write(connection, tool, bound, effect, digest(arguments))

    @contextmanager
    def _opened(self, tool: Tool, until: float) -> Iterator[sqlite3.Connection]:
        mode = "ro" if tool.read_only else "rw"
        wait = max(until - time.monotonic(), 0.001)
        connection = sqlite3.connect(f"{self._path.absolute().as_uri()}?mode={mode}", uri=True, timeout=wait, isolation_level=None)
        with closing(connection):
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA foreign_keys = ON")
            connection.set_progress_handler(lambda: time.monotonic() > until, _STEPS_BETWEEN_LOOKS)
            connection.set_authorizer(authorizer(read_only=tool.read_only))
            yield connection


@contextmanager
def _told_plainly(tool: Tool, until: float) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if time.monotonic() > until or "locked" in str(error):
            raise ToolTimeoutError(f"tool {tool.name!r} did not finish within {tool.timeout_seconds} s") from error
        raise ToolFailedError(f"tool {tool.name!r} failed: {error}") from error
    except sqlite3.Error as error:
        raise ToolFailedError(f"tool {tool.name!r} failed: {error}") from error


def _fetch(connection: sqlite3.Connection, tool: Tool, bound: dict[str, Any]) -> Outcome:
    rows = connection.execute(tool.sql, bound).fetchmany(tool.max_rows + 1)
    return Outcome(tuple(dict(row) for row in rows[: tool.max_rows]), truncated=len(rows) > tool.max_rows)


def _write(connection: sqlite3.Connection, tool: Tool, bound: dict[str, Any], effect: Effect, arguments: str) -> Outcome:
    key = (effect.tenant, effect.call_id)
    with _transaction(connection):
        query = "SELECT tool, arguments_sha256, result FROM strata_effects WHERE tenant = ? AND call_id = ?"
        earlier = connection.execute(query, key).fetchone()
        if earlier is not None:
            if (earlier["tool"], earlier["arguments_sha256"]) != (tool.name, arguments):
                raise ConflictError(f"call {effect.call_id!r} was made before with another tool or other arguments")
            stored = json.loads(earlier["result"])
            return Outcome(tuple(stored["rows"]), stored["changed"], stored["truncated"], replayed=True)
        before = connection.total_changes
        rows = [dict(row) for row in connection.execute(tool.sql, bound).fetchall()]
        outcome = Outcome(tuple(rows[: tool.max_rows]), connection.total_changes - before, len(rows) > tool.max_rows)
        result = json.dumps({"rows": outcome.rows, "changed": outcome.changed, "truncated": outcome.truncated})
        connection.execute("INSERT INTO strata_effects VALUES (?, ?, ?, ?, ?)", (*key, tool.name, arguments, result))
        return outcome


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        # The deadline must not interrupt the rollback as well.
        connection.set_progress_handler(None, 0)
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
