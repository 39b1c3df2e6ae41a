"""How calls run within their limits, on a real SQLite file."""

import asyncio
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chassis.errors import ConflictError, InvalidArgumentError, ServiceError
from tool_sandbox.breaker import Breaker
from tool_sandbox.databases import Database, Effect, Outcome, build
from tool_sandbox.declarations import load
from tool_sandbox.sandbox import Call, Sandbox


@pytest.fixture
def path(domains: Path) -> Path:
    """The database file of the test's domain."""
    target = domains.parent / "state" / "shop.db"
    build(domains / "shop" / "tables.sql", target)
    return target


@pytest.fixture
def sandbox(domains: Path, path: Path) -> Sandbox:
    """A sandbox over the test's domain that rests a tool after two failures."""
    return Sandbox(load(domains), {"shop": Database(path)}, failures=2, reset=60.0)


async def run(sandbox: Sandbox, tool: str, *, call_id: str = "c1", role: str = "clerk", tenant: str = "acme", **arguments: Any) -> Outcome:
    """Admit and run one call."""
    call = Call(tenant, role, "shop", tool, arguments, call_id)
    return await sandbox.run(call, sandbox.admit(call), seconds=5.0)


async def test_rows_are_returned_up_to_the_limit(sandbox: Sandbox) -> None:
    """More rows than the tool may return are cut, and the answer says so."""
    some = await run(sandbox, "find_things", name="a")
    one = await run(sandbox, "find_things", name="table")

    assert [row["name"] for row in some.rows] == ["chair", "table"]
    assert some.truncated
    assert one.rows == ({"thing_id": "T-2", "name": "table"},)
    assert not one.truncated


async def test_an_argument_is_a_value_and_never_sql(sandbox: Sandbox, path: Path) -> None:
    """Text that looks like SQL finds nothing and changes nothing."""
    outcome = await run(sandbox, "find_things", name="' OR 1=1; DROP TABLE things; --")

    assert outcome.rows == ()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM things").fetchone() == (3,)


@pytest.mark.parametrize(
    ("tool", "role", "arguments", "code", "words"),
    [
        ("fly", "clerk", {}, "tool_unknown", "known: ['break_down', 'count_for_ever', 'find_things', 'take_thing']"),
        ("find_things", "visitor", {"name": "a"}, "tool_not_allowed", "role 'visitor'"),
        ("find_things", "clerk", {}, "tool_arguments_invalid", "'name' is a required property"),
        ("find_things", "clerk", {"name": "a", "limit": 9}, "tool_arguments_invalid", "'limit' was unexpected"),
        ("find_things", "clerk", {"name": 7}, "tool_arguments_invalid", "name: fails type 'string'"),
        ("take_thing", "clerk", {"who": "x", "thing_id": "secret-1"}, "tool_arguments_invalid", "thing_id: fails pattern"),
    ],
)
async def test_a_call_that_may_not_run_is_refused(
    sandbox: Sandbox, tool: str, role: str, arguments: dict[str, Any], code: str, words: str
) -> None:
    """Unknown tools, roles that are not listed and wrong arguments have stable codes; the value itself is not repeated."""
    with pytest.raises(ServiceError) as refusal:
        await run(sandbox, tool, role=role, **arguments)

    assert refusal.value.code == code
    assert words in str(refusal.value)
    assert "secret-1" not in str(refusal.value)


async def test_a_call_needs_an_identifier(sandbox: Sandbox) -> None:
    """Without a call_id a repeat could not be told from a second call."""
    with pytest.raises(InvalidArgumentError, match="call_id"):
        await run(sandbox, "find_things", call_id="", name="a")


async def test_a_write_happens_once_for_each_call(sandbox: Sandbox) -> None:
    """The same call again returns the first result; another call finds the thing taken."""
    first = await run(sandbox, "take_thing", call_id="r1:take", who="ann", thing_id="T-1")
    again = await run(sandbox, "take_thing", call_id="r1:take", who="ann", thing_id="T-1")
    other = await run(sandbox, "take_thing", call_id="r2:take", who="bob", thing_id="T-1")

    assert (first.rows, first.changed, first.replayed) == (({"thing_id": "T-1"},), 1, False)
    assert (again.rows, again.changed, again.replayed) == (({"thing_id": "T-1"},), 1, True)
    assert (other.rows, other.changed, other.replayed) == ((), 0, False)


async def test_parallel_attempts_of_one_call_write_once(sandbox: Sandbox) -> None:
    """When a slow attempt and its repeat meet, one writes and the others read its result."""
    outcomes = await asyncio.gather(*(run(sandbox, "take_thing", call_id="r1", who="ann", thing_id="T-1") for _ in range(8)))

    assert [outcome.rows for outcome in outcomes] == [({"thing_id": "T-1"},)] * 8
    assert [outcome.replayed for outcome in outcomes].count(False) == 1


async def test_a_call_identifier_belongs_to_its_arguments_and_its_tenant(sandbox: Sandbox) -> None:
    """The same identifier with other arguments is refused; another tenant's identifier is another call."""
    await run(sandbox, "take_thing", who="ann", thing_id="T-1")

    with pytest.raises(ConflictError) as conflict:
        await run(sandbox, "take_thing", who="ann", thing_id="T-2")
    foreign = await run(sandbox, "take_thing", tenant="other", who="eve", thing_id="T-2")

    assert conflict.value.code == "idempotency_conflict"
    assert not foreign.replayed


async def test_a_slow_tool_is_stopped(sandbox: Sandbox) -> None:
    """A statement that would run for ever ends at the tool's limit."""
    started = time.monotonic()
    with pytest.raises(ServiceError) as stopped:
        await run(sandbox, "count_for_ever")

    assert stopped.value.code == "tool_timeout"
    assert 0.25 < time.monotonic() - started < 180


async def test_a_write_waits_for_a_lock_no_longer_than_its_limit(sandbox: Sandbox, path: Path) -> None:
    """While another process holds the file a write times out, and works once the file is free."""
    with closing(sqlite3.connect(path)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(ServiceError) as stopped:
            await run(sandbox, "take_thing", who="ann", thing_id="T-1")
    after = await run(sandbox, "take_thing", who="ann", thing_id="T-1")

    assert stopped.value.code == "tool_timeout"
    assert after.changed == 1


async def test_a_failing_tool_rests_and_does_not_stop_the_others(sandbox: Sandbox) -> None:
    """After two failures the tool is refused at once; other tools still answer."""
    errors = []
    for _ in range(3):
        with pytest.raises(ServiceError) as failure:
            await run(sandbox, "break_down")
        errors.append(failure.value)

    assert [error.code for error in errors] == ["tool_failed"] * 3
    assert "integer overflow" in str(errors[1])
    assert "tried again in 60 s" in str(errors[2])
    assert errors[2].retryable
    assert (await run(sandbox, "find_things", name="lamp")).rows


def test_a_breaker_lets_one_call_try_after_the_pause() -> None:
    """After the pause one call goes through, the next waits; a success closes the breaker."""
    now = [0.0]
    breaker = Breaker(failures=2, reset_seconds=10.0, clock=lambda: now[0])
    breaker.failed()
    assert breaker.wait_seconds() == 0.0
    breaker.failed()
    assert breaker.wait_seconds() == 10.0

    now[0] = 10.0
    assert breaker.wait_seconds() == 0.0
    assert breaker.wait_seconds() == 10.0
    breaker.succeeded()
    assert breaker.wait_seconds() == 0.0


def test_the_file_is_opened_without_the_right_to_write(domains: Path, path: Path) -> None:
    """Even a reading tool whose text was swapped for a write after loading changes nothing."""
    declared = replace(load(domains)["shop", "find_things"], sql="DELETE FROM things WHERE name = :name")

    with pytest.raises(ServiceError) as refusal:
        Database(path).run(declared, {"name": "lamp"}, effect=Effect("acme", "c1"), seconds=1.0)

    assert refusal.value.code == "tool_failed"
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM things").fetchone() == (3,)


def test_a_second_start_keeps_what_was_written(domains: Path, path: Path) -> None:
    """The file is built once; a restart does not lose bookings."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE things SET taken_by = 'ann'")
        connection.commit()

    build(domains / "shop" / "tables.sql", path)

    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM things WHERE taken_by = 'ann'").fetchone() == (3,)
