"""Holds a tool's SQL to one statement of the kind that its declaration allows."""

import sqlite3
from collections.abc import Callable

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

_READ = (exp.Select, exp.SetOperation)
_WRITE = (exp.Insert, exp.Update, exp.Delete)
_FORBIDDEN = (exp.Command, exp.Pragma, exp.Attach, exp.Detach, exp.Create, exp.Drop, exp.Alter, exp.Transaction, exp.Commit, exp.Parameter)
_FORBIDDEN_FUNCTIONS = {"load_extension", "readfile", "writefile", "edit", "randomblob", "zeroblob"}
CALL_ID = "call_id"

_ALWAYS = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
_CHANGES = {sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE, sqlite3.SQLITE_TRANSACTION}


class StatementError(ValueError):
    """A statement is not what its declaration allows."""


def check(sql: str, *, read_only: bool, parameters: set[str]) -> None:
    """Raise StatementError unless `sql` is one statement of its kind that binds only declared parameters."""
    try:
        statements = [statement for statement in sqlglot.parse(sql, read="sqlite") if statement is not None]
    except SqlglotError as error:
        raise StatementError(f"sql cannot be parsed: {' '.join(str(error).split())[:200]}") from error
    if len(statements) != 1:
        raise StatementError(f"sql must be one statement, found {len(statements)}")
    _check_kind(statements[0], read_only=read_only)
    _check_names(statements[0], parameters)


def _check_kind(statement: exp.Expression, *, read_only: bool) -> None:
    allowed = _READ if read_only else _WRITE
    if not isinstance(statement, allowed):
        names = ", ".join(kind.__name__.upper() for kind in allowed)
        raise StatementError(
            f"sql of a tool with read_only: {str(read_only).lower()} must be one of {names}, found {statement.key.upper()}"
        )
    for node in statement.walk():
        if isinstance(node, _FORBIDDEN) or (read_only and isinstance(node, _WRITE)):
            raise StatementError(f"sql may not contain {node.key.upper()}")
        if isinstance(node, exp.Func) and node.sql_name().lower() in _FORBIDDEN_FUNCTIONS:
            raise StatementError(f"sql may not call {node.sql_name().lower()}")
        if isinstance(node, exp.Anonymous) and str(node.this).lower() in _FORBIDDEN_FUNCTIONS:
            raise StatementError(f"sql may not call {str(node.this).lower()}")


def _check_names(statement: exp.Expression, parameters: set[str]) -> None:
    if CALL_ID in parameters:
        raise StatementError(f"{CALL_ID!r} is bound by the sandbox and cannot be a parameter")
    used = {str(node.name) for node in statement.find_all(exp.Placeholder)}
    if unknown := sorted(used - parameters - {CALL_ID}):
        raise StatementError(f"sql binds {unknown}, declared are {sorted(parameters)}")


def authorizer(*, read_only: bool) -> Callable[[int, str | None, str | None, str | None, str | None], int]:
    """Return SQLite's own guard: a second lock that does not depend on how the text was parsed."""
    allowed = _ALWAYS if read_only else _ALWAYS | _CHANGES

    def decide(action: int, _: str | None, name: str | None, *__: str | None) -> int:
        if action not in allowed or (action == sqlite3.SQLITE_FUNCTION and (name or "").lower() in _FORBIDDEN_FUNCTIONS):
            return sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_OK

    return decide
