"""Adapters are served as they were trained, or not at all."""

import shutil
from pathlib import Path

import pytest

from inference.engine import altered

ADAPTER = Path(__file__).parents[3] / "models" / "adapters" / "retail-answer@v1"


def _flip(folder: Path) -> None:
    content = bytearray((folder / "adapter_model.safetensors").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "adapter_model.safetensors").write_bytes(content)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda folder: None, ""),
        (_flip, "adapter_model.safetensors is not the one of its manifest"),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), "adapter_config.json is not the one of its manifest"),
        (lambda folder: (folder / "manifest.json").unlink(), "it has no manifest with hashes"),
        (lambda folder: (folder / "adapter_model.bin").write_bytes(b"x"), "it holds adapter_model.bin, which could run code"),
    ],
)
def test_an_adapter_that_was_altered_is_refused(tmp_path: Path, change, problem: str) -> None:
    """One flipped bit, another configuration, no manifest, or a file that could run code: the reason is named."""
    folder = tmp_path / "adapter"
    shutil.copytree(ADAPTER, folder)
    change(folder)
    assert altered(folder).startswith(problem)
    assert bool(altered(folder)) is bool(problem)
