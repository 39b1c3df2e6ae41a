"""What the configuration file may say, and how it is refused."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from inference import engine
from inference.configuration import ConfigurationError, Engine, load
from testkit.nats import NatsServer
from testkit.vllm import repository

from .conftest import configuration, deployment


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Any], Path]:
    """Writes a configuration file."""

    def _write(content: Any) -> Path:
        path = tmp_path / "models.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
        return path

    return _write


def test_the_shipped_file_is_valid() -> None:
    """What ships maps every tier to the engine of this machine."""
    models = load(repository() / "deploy" / "config" / "models.yaml")

    assert set(models.tiers) == {"small", "mid", "large", "reasoning"}
    assert models.deployments["local"].endpoint(8100) == "http://127.0.0.1:8100"


def test_the_example_of_a_larger_model_is_valid(write: Callable[[Any], Path]) -> None:
    """The entries that the comment shows can be copied as they stand."""
    text = (repository() / "deploy" / "config" / "models.yaml").read_text()
    comment = [line.removeprefix("#") for line in text.split("deployments:")[0].splitlines()]
    shown = yaml.safe_load("\n".join(line for line in comment if line.startswith("     ") or line.strip() in ("gpu:", "remote:")))
    content = yaml.safe_load(text)
    content["deployments"] |= shown
    content["tiers"]["large"] = {"deployment": "gpu", "fallbacks": ["local"]}

    models = load(write(content))

    assert models.deployments["gpu"].base_model == "Qwen/Qwen2.5-7B-Instruct"
    assert models.deployments["remote"].kind == "openai"


_GOOD = configuration({"a": deployment("http://x")}, "a")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (configuration({"a": deployment("http://x")}, "b"), "tier 'small' names the unknown deployment 'b'; known: ['a']"),
        (configuration({"a": deployment("http://x")}, {"deployment": "a", "fallbacks": ["c"]}), "unknown deployment 'c'"),
        (
            configuration({"a": deployment("http://x")}, "a", {"p@v1": {"deployment": "z"}}),
            "adapter 'p@v1' names the unknown deployment 'z'",
        ),
        ({**_GOOD, "tiers": {"small": "a"}}, "tiers without a deployment: ['mid', 'large', 'reasoning']"),
        ({**_GOOD, "tiers": {**_GOOD["tiers"], "huge": "a"}}, "tiers.huge"),
        (configuration({"a": deployment("http://x", kind="magic")}, "a"), "deployments.a.kind"),
        (configuration({"a": deployment("http://x", temperature=1)}, "a"), "deployments.a.temperature"),
        ("deployments: [", "models.yaml"),
        ("", "models.yaml"),
    ],
)
def test_wrong_content_is_named_in_one_line(write: Callable[[Any], Path], content: Any, named: str) -> None:
    """Whoever wrote the file learns which entry is wrong, and what would be right."""
    with pytest.raises(ConfigurationError) as caught:
        load(write(content))

    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_service_does_not_start_on_a_wrong_file(bus: NatsServer, write: Callable[[Any], Path]) -> None:
    """The process ends with that line on standard error."""
    path = write(configuration({"a": deployment("http://x")}, "b"))
    environment = {**os.environ, "STRATA_INFERENCE_CONFIG_FILE": str(path), "STRATA_HOME": str(repository())}

    done = subprocess.run([sys.executable, "-m", "inference"], env=environment, capture_output=True, text=True, timeout=180, check=False)

    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("inference: ")
    assert "unknown deployment 'b'" in done.stderr.strip().splitlines()[-1]


def test_the_engine_gets_the_adapters_that_exist(tmp_path: Path) -> None:
    """An adapter without weights, or with others than its manifest's, is left out, and the key stays off the command line."""
    config = load(repository() / "deploy" / "config" / "models.yaml")
    (tmp_path / "credentials" / "inference").mkdir(parents=True)
    (tmp_path / "credentials" / "inference" / "engine.key").write_text("a-secret")
    adapters = tmp_path / "models" / "adapters"
    for name in ("patient-answer@v1", "symptom-extract@v1"):
        shutil.copytree(repository() / "models" / "adapters" / name, adapters / name)
    (adapters / "retail-answer@v1").mkdir()
    (adapters / "symptom-extract@v1" / "adapter_model.safetensors").write_bytes(b"others")

    line, environment = engine.command(config, "local", tmp_path, tmp_path, 8100)

    assert [word for word in line if "@v1=" in word] == [f"patient-answer@v1={tmp_path}/models/adapters/patient-answer@v1"]
    assert "--enable-lora" in line
    assert "a-secret" not in line
    assert environment["VLLM_API_KEY"] == "a-secret"
    assert line[line.index("--port") + 1] == "8100"


def test_an_engine_without_adapters_starts_without_them(tmp_path: Path) -> None:
    """A fresh clone, before any training, still has a model."""
    config = load(repository() / "deploy" / "config" / "models.yaml")
    (tmp_path / "credentials" / "inference").mkdir(parents=True)
    (tmp_path / "credentials" / "inference" / "engine.key").write_text("k")

    assert "--enable-lora" not in engine.command(config, "local", tmp_path, tmp_path, 8100)[0]


@pytest.mark.parametrize(
    ("asked", "flags", "used"),
    [("auto", "avx2 fma", "float32"), ("auto", "avx512_bf16", "bfloat16"), ("bfloat16", "avx2", "bfloat16")],
)
def test_the_number_format_follows_the_processor(tmp_path: Path, asked: str, flags: str, used: str) -> None:
    """A processor that cannot multiply bfloat16 gets float32, unless the file says otherwise."""
    (tmp_path / "cpuinfo").write_text(f"flags : fpu {flags} sse")

    assert engine._dtype(Engine(dtype=asked), tmp_path / "cpuinfo") == used


def test_a_deployment_elsewhere_is_not_started_here(tmp_path: Path, write: Callable[[Any], Path]) -> None:
    """Only a vLLM that the file says to start gets a command line."""
    with pytest.raises(ConfigurationError, match="not started here"):
        engine.command(load(write(_GOOD)), "a", tmp_path, tmp_path, 8100)
