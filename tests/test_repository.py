"""What holds for every file of the repository."""

import ast
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from contracts.identities import SERVICES

ROOT = Path(__file__).resolve().parents[1]
FILES = [
    ROOT / name
    for name in subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    if (ROOT / name).is_file()
]
SOURCES = [path for path in FILES if path.suffix == ".py" and "contracts/src/strata" not in str(path)]
DRAWERS = {"common", "utils", "util", "helpers", "shared", "misc", "base_service"}
# Built from parts, so that this file does not hold what it forbids.
UNFINISHED = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" * 3)) + r")\b|raise NotImplemented" + "Error")
HEADINGS = ["Purpose", "Speaks", "Settings", "Run it alone", "When it fails"]


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_no_module_is_a_drawer() -> None:
    """A module is named after what it does."""
    assert [_name(path) for path in SOURCES if path.stem in DRAWERS or path.parent.name in DRAWERS] == []


def test_nothing_is_left_unfinished() -> None:
    """What is not done is in docs/STATUS.md, not in a mark in the code."""
    assert [_name(path) for path in SOURCES if UNFINISHED.search(path.read_text())] == []


def test_no_module_is_too_long() -> None:
    """Beyond 400 lines a module is split by noun."""
    assert [_name(path) for path in SOURCES if path.read_text().count("\n") > 400] == []


def test_every_module_and_test_says_what_it_is_for() -> None:
    """Modules have a docstring, and tests state the behaviour."""
    silent = []
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        if tree.body and not ast.get_docstring(tree):
            silent.append(_name(path))
        functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
        silent += [f"{_name(path)}::{f.name}" for f in functions if f.name.startswith("test_") and not ast.get_docstring(f)]
    assert silent == []


@pytest.mark.parametrize("service", [identity.name for identity in SERVICES if identity.http_port and identity.name != "cli"])
def test_every_service_has_its_page(service: str) -> None:
    """All pages have the same headings, so that a newcomer finds the same thing in the same place."""
    text = (ROOT / "services" / service / "README.md").read_text()

    assert re.findall(r"^## (.+)$", text, re.MULTILINE)[: len(HEADINGS)] == HEADINGS


def test_links_in_the_documents_lead_somewhere() -> None:
    """No relative link in a Markdown file is broken."""
    pages = {path: re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text()) for path in FILES if path.suffix == ".md"}
    broken = [
        f"{_name(path)} -> {target}"
        for path, targets in pages.items()
        for target in targets
        if "://" not in target and not (path.parent / target).exists()
    ]
    assert broken == []


def test_compose_is_read_only_and_without_privileges() -> None:
    """No service of ours writes outside its state or gains rights."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]

    for name, service in services.items():
        if name not in {"nats", "opensearch"}:
            assert service["read_only"], name
            assert service["cap_drop"] == ["ALL"], name
