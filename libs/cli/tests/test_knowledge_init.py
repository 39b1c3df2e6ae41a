"""`strata knowledge init` against a real OpenSearch."""

import json
import stat
from pathlib import Path

from typer.testing import CliRunner

from cli.main import app
from encoders import Encoder
from knowledge import backends
from knowledge.backends import BackendSettings
from testkit.opensearch import OpenSearchNode


def _init(node: OpenSearchNode, state_dir: Path, *more: str) -> str:
    arguments = ["knowledge", "init", "--url", node.url, "--ca", str(node.ca_file), "--admin-user", node.user]
    arguments += ["--admin-password-file", str(node.password_file), "--state", str(state_dir), *more]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_init_makes_what_both_services_need(opensearch: OpenSearchNode, tmp_path: Path) -> None:
    """After it, both services open the index of the installed encoder with nothing but the URL; a second run keeps everything."""
    first = json.loads(_init(opensearch, tmp_path, "--json"))
    passwords = {name: Path(file).read_text() for name, file in first["users"].items()}
    assert {stat.S_IMODE(Path(file).stat().st_mode) for file in first["users"].values()} == {0o600}
    assert json.loads(_init(opensearch, tmp_path, "--json")) == first
    assert {name: Path(file).read_text() for name, file in first["users"].items()} == passwords
    settings, encoder = BackendSettings(backend="opensearch", url=opensearch.url), Encoder.load().identity.key()
    assert any(encoder in name for name in first["indices"])
    assert backends.create(settings, tmp_path, "ingestor", encoder).encoder == encoder
    assert set(backends.open_index(settings, tmp_path, "retriever", encoder).versions()) == {"fluid", "anchored"}


def test_init_says_what_is_wrong(tmp_path: Path) -> None:
    """A cluster that is not there, or a user without a password, is one line and an exit code."""
    password = tmp_path / "password"
    password.write_text("x")
    runner = CliRunner()
    result = runner.invoke(app, ["knowledge", "init", "--url", "http://127.0.0.1:1", "--admin-password-file", str(password)])
    assert (result.exit_code, "does not answer" in result.output) == (3, True)
    assert runner.invoke(app, ["knowledge", "init", "--url", "http://127.0.0.1:1"]).exit_code == 2
