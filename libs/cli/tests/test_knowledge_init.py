"""`strata knowledge init` without an OpenSearch; with one, see libs/knowledge."""

from pathlib import Path

from typer.testing import CliRunner

from cli.main import app


def test_init_says_what_is_wrong(tmp_path: Path) -> None:
    """A cluster that is not there, or a user without a password, is one line and an exit code."""
    password = tmp_path / "password"
    password.write_text("x")
    runner = CliRunner()
    result = runner.invoke(app, ["knowledge", "init", "--url", "http://127.0.0.1:1", "--admin-password-file", str(password)])
    assert (result.exit_code, "does not answer" in result.output) == (3, True)
    assert runner.invoke(app, ["knowledge", "init", "--url", "http://127.0.0.1:1"]).exit_code == 2
