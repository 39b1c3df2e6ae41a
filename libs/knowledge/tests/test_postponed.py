"""What a service does not use does not delay its start, and is there when it is asked for."""

import subprocess
import sys
from pathlib import Path

import pytest

from knowledge.postponed import postpone


def test_a_package_runs_when_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its modules can be imported before; an attribute of it runs it, once."""
    package = tmp_path / "heavy_client"
    package.mkdir()
    (package / "__init__.py").write_text("from heavy_client.small import NAME\nruns = globals().get('runs', 0) + 1\n")
    (package / "small.py").write_text("NAME = 'small'\n")
    monkeypatch.syspath_prepend(tmp_path)
    postpone("heavy_client")
    try:
        from heavy_client.small import NAME  # type: ignore[import-not-found]

        module = sys.modules["heavy_client"]
        assert (NAME, "runs" in vars(module)) == ("small", False)
        assert (module.NAME, module.runs, module.runs) == ("small", 1, 1)
        with pytest.raises(AttributeError):
            _ = module.absent
    finally:
        for name in ("heavy_client", "heavy_client.small"):
            sys.modules.pop(name, None)


def answer(program: str) -> str:
    """Return what a program prints in a process that has imported nothing."""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True).stdout.strip()


def test_lancedb_does_without_its_client_until_then() -> None:
    """The embedded index is imported without the REST client, which is whole when somebody looks at it."""
    program = (
        "import sys, knowledge.lance; before = 'lance_namespace_urllib3_client.api' in sys.modules;"
        "import lance_namespace_urllib3_client as client; print(before, client.NamespaceApi.__name__)"
    )
    assert answer(program) == "False NamespaceApi"


def test_only_the_engine_in_use_is_imported() -> None:
    """What says which engine it is imports none of them."""
    assert answer("import sys, knowledge.backends; print(sorted({'lancedb', 'opensearchpy'} & set(sys.modules)))") == "[]"


def test_what_is_not_installed_is_left_alone() -> None:
    """A package that is not there stays not there."""
    postpone("no_such_client")
    assert "no_such_client" not in sys.modules
