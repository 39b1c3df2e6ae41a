"""`strata audit` on a folder with nothing running."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app

from .test_verification import _write


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installation with a cosigned log of forty records."""
    folder = tmp_path_factory.mktemp("commands") / "state" / "audit"
    _write(folder, 40)
    return folder.parent


def _run(state: Path, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["audit", *arguments, "--state", str(state)])
    return result.exit_code, result.stdout


def test_proofs_are_printed_with_exactly_the_promised_fields(state: Path) -> None:
    """Other projects' verifiers read these objects."""
    fields = {
        ("prove", "r1/7"): {"checkpoint", "verifier_key", "witness_keys", "leaf", "index", "size", "proof"},
        ("consistency", "20", "40"): {"old_checkpoint", "new_checkpoint", "verifier_key", "witness_keys", "proof"},
        ("checkpoint",): {"checkpoint", "verifier_key", "witness_keys", "size", "root"},
    }
    for command, expected in fields.items():
        code, text = _run(state, *command, "--json")

        assert code == 0
        assert set(json.loads(text)) == expected


def test_what_cannot_be_proven_ends_with_an_error(state: Path) -> None:
    """Unknown records and sizes beyond the end leave standard output empty; a stable code says on the other which of them it was."""
    expected = {
        ("prove", "nobody"): "not_found",
        ("prove", "r1/7", "--log", "nowhere"): "not_found",
        ("consistency", "20", "41"): "invalid_request",
        ("consistency", "30", "20"): "invalid_request",
    }
    for command, code in expected.items():
        result = CliRunner().invoke(app, ["audit", *command, "--json", "--state", str(state)])
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith(f"strata: {code}: ")


def test_the_check_says_intact_or_where_it_is_not(state: Path, tmp_path: Path) -> None:
    """The exit code tells, and a checkpoint that was kept elsewhere is compared."""
    code, text = _run(state, "verify")
    assert (code, text.split(",")[0]) == (0, "intact: 40 records")
    kept = tmp_path / "kept"
    kept.write_text(json.loads(_run(state, "checkpoint", "--json")[1])["checkpoint"])
    assert _run(state, "verify", "--checkpoint", str(kept))[0] == 0
    kept.write_text(kept.read_text().replace("\n40\n", "\n39\n"))

    code, text = _run(state, "verify", "--json", "--checkpoint", str(kept))

    assert code == 1
    assert not json.loads(text)["intact"]


def test_a_log_that_is_not_there_is_not_an_altered_one(state: Path, tmp_path: Path) -> None:
    """Whoever mistypes the folder or forgot the keys is told so, with exit codes of their own."""
    (tmp_path / "audit").mkdir()
    shutil.copytree(state / "audit", tmp_path / "copy" / "audit")
    for options, expected, code in (
        (("--log", str(tmp_path / "nowhere")), "nothing_to_check: there is no log", 3),
        (("--log", str(tmp_path / "audit")), "nothing_to_check: there is no log", 3),
        (("--log", str(tmp_path / "copy" / "audit")), "nothing_to_check: ", 3),
        (("--key", "nonsense"), "invalid_input: ", 2),
    ):
        result = CliRunner().invoke(app, ["audit", "verify", *options, "--json", "--state", str(state)])
        assert (result.exit_code, result.stdout) == (code, "")
        assert result.stderr.startswith(f"strata: {expected}")
