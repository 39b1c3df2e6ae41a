"""An engine of one's own for as long as an evaluation runs, or one that runs already."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from inference import configuration, engine
from inference.configuration import ConfigurationError, Models
from inference.settings import Settings

_START_SECONDS = 600
_STOP_SECONDS = 20


@contextmanager
def serving(settings: Settings, options: dict[str, str]) -> Iterator[Models]:
    """Yield the configuration with its engine running; raise ValueError when none can be had.

    Option `deployment` names it (default `local`). Option `url`, with `key_file` where it wants a key, takes an engine that runs.
    """
    config = configuration.load(settings.models_file)
    name = options.get("deployment", "local")
    if name not in config.deployments:
        raise ValueError(f"unknown deployment {name!r}; known: {sorted(config.deployments)}")
    if url := options.get("url"):
        key = Path(options["key_file"]).resolve() if "key_file" in options else None
        yield _pointing(config, name, url, key)
        return
    with tempfile.TemporaryDirectory(prefix="strata-eval-") as folder:
        try:
            deployment, _ = engine.engine_of(config, name)
            engine.export_base(deployment, settings.base_models, settings.repository_dir)
        except ConfigurationError as error:
            raise ValueError(f"no engine: {error}; or give -o url=URL") from error
        key = Path(folder) / "engine.key"
        key.touch(mode=0o600)
        key.write_text(secrets.token_urlsafe(24))
        port = _free_port()
        local = _pointing(config, name, f"http://127.0.0.1:{port}", key)
        step = deployment.engine.port_step if deployment.engine else 0
        line, environment = engine.command(
            local,
            name,
            Path(folder),
            settings.repository_dir,
            port - step,
            base_models=settings.base_models,
            threads=settings.engine_threads,
        )
        log = Path(folder) / "engine.log"
        with log.open("ab") as output:
            process = subprocess.Popen(line, env={**os.environ, **environment}, stdout=output, stderr=output, start_new_session=True)
        # Ended from outside, Python would leave without stopping the engine.
        before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
        try:
            _wait(f"http://127.0.0.1:{port}/health", process, log)
            yield local
        finally:
            _stop(process)
            signal.signal(signal.SIGTERM, before)


def _pointing(config: Models, name: str, url: str, key: Path | None) -> Models:
    """Return the configuration in which every tier goes to one deployment, at `url`."""
    spec = config.deployments[name].model_copy(update={"url": url, "api_key_file": key, "api_key_env": None})
    tiers = {tier: target.model_copy(update={"deployment": name, "fallbacks": ()}) for tier, target in config.tiers.items()}
    return config.model_copy(update={"deployments": {**config.deployments, name: spec}, "tiers": tiers})


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - http, to ourselves
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise ValueError(f"the engine did not start: {log.read_text(errors='replace')[-1500:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the engine with its workers, which are processes of its group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
