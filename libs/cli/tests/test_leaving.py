"""How commands end that cannot do what they were asked."""

from pathlib import Path

import nats.errors
import pytest
import typer
from typer.testing import CliRunner

from chassis.errors import DeadlineError, NotFoundError
from cli.leaving import one_line
from cli.main import app


@pytest.mark.parametrize(
    ("command", "code", "exit_code"),
    [
        ("asks", "usage", 2),
        ("--nothing", "usage", 2),
        ("keys create --tenant acme", "usage", 2),
        ("keys create --tenant a.b --role app", "usage", 2),
        ("ask hello --key x --context [", "usage", 2),
        ("ask hello --key schlüssel", "invalid_input", 2),
        ("ask hello --key x", "unreachable", 3),
        ("stop set all --reason x --key x", "unreachable", 3),
        ("eval nothing --data .", "invalid_input", 2),
        ("logs nothing", "invalid_input", 2),
        ("review export --out nowhere/x.jsonl", "invalid_input", 2),
        ("audit receipt req_1 --out nowhere/x.json", "invalid_input", 2),
        ("audit bundle req_1 --out /", "invalid_input", 2),
        ("redteam --items LLM01,LLM99", "invalid_input", 2),
        ("demo --domain nothing", "invalid_input", 2),
        ("router train --data . --out nothing", "invalid_input", 2),
        ("keys list", "not_running", 3),
        ("knowledge status --json", "not_running", 3),
        ("trace show nothing", "not_running", 3),
        ("keys rotate-signing", "file_error", 1),
        ("audit prove 1", "not_found", 1),
    ],
)
def test_what_cannot_be_done_is_one_line_with_a_code(
    command: str, code: str, exit_code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Standard output stays empty, so that whoever reads JSON reads none; the exit code says who has to act."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "stack.json").write_text('{"port_offset": 919, "supervisor": 0}')
    monkeypatch.setenv("STRATA_STATE_DIR", str(tmp_path))
    result = CliRunner().invoke(app, command.split())
    assert (result.exit_code, result.stdout) == (exit_code, ""), result.stderr
    assert result.stderr.startswith(f"strata: {code}: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "line", "exit_code"),
    [
        (NotFoundError("no [red]such[/red]\nthing"), "not_found: no [red]such[/red] thing", 1),
        (DeadlineError("late", code="tool_timeout"), "tool_timeout: late", 3),
        (nats.errors.NoServersError(), "unreachable: the bus", 3),
    ],
)
def test_what_services_raise_keeps_its_code(error: Exception, line: str, exit_code: int, capfd: pytest.CaptureFixture[str]) -> None:
    """Text from elsewhere is printed as it is, on one line."""
    with pytest.raises(typer.Exit) as left, one_line():
        raise error
    assert left.value.exit_code == exit_code
    assert capfd.readouterr().err.startswith(f"strata: {line}")


def test_a_bug_keeps_its_traceback() -> None:
    """What nobody foresaw is not told as if somebody had."""
    with pytest.raises(ZeroDivisionError), one_line():
        _ = 1 / 0
