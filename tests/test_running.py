"""How the tests are run: what has a second try, and what has none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
_UNSTEADY = """
from pathlib import Path

def test_a():
    seen = Path(__file__).with_name("seen")
    first = not seen.exists()
    seen.touch()
    assert not first
"""
_BROKEN = "def test_a():\n    assert False\n"


@pytest.mark.parametrize(
    ("folder", "source", "code"),
    [
        ("services/one", _UNSTEADY, 0),
        ("services/one", _BROKEN, 1),
        ("services/audit", _UNSTEADY, 1),
        ("services/one", "import nothing_such\n", 1),
    ],
)
def test_only_an_unsteady_test_that_proves_no_loss_is_run_once_more(tmp_path: Path, folder: str, source: str, code: int) -> None:
    """What fails twice fails the build, and so does a failure of what guards records, once."""
    script = tmp_path / "deploy" / "run_tests.py"
    script.parent.mkdir()
    script.write_bytes((ROOT / "deploy" / "run_tests.py").read_bytes())
    tests = tmp_path / folder / "tests"
    tests.mkdir(parents=True)
    (tests / "test_one.py").write_text(source)
    (tests / "test_two.py").write_text("def test_b():\n    pass\n")
    bare = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    ended = subprocess.run([sys.executable, script, "not model", "2"], env=bare, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == code, ended.stdout
    assert ("UNSTEADY services/one/tests/test_one.py::test_a" in ended.stdout) == (code == 0)
