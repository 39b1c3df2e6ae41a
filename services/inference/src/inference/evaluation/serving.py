"""An engine of one's own for as long as an evaluation runs, or one that runs already."""

import secrets
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chassis.child_servers import free_port, running
from inference import configuration, engine
from inference.configuration import ConfigurationError, Models
from inference.settings import Settings

_START_SECONDS = 600


@contextmanager
def serving(settings: Settings, options: dict[str, str]) -> Iterator[Models]:
    """Yield the configuration with its engine running; raise ValueError where there is none, UnavailableError when it does not start.

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
        port = free_port()
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
        # Ended from outside, Python would leave without stopping the engine.
        before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
        try:
            ready, log = f"http://127.0.0.1:{port}/health", Path(folder) / "engine.log"
            with running(line, environment, ready_url=ready, log=log, start_seconds=_START_SECONDS):
                yield local
        finally:
            signal.signal(signal.SIGTERM, before)


def _pointing(config: Models, name: str, url: str, key: Path | None) -> Models:
    """Return the configuration in which every tier goes to one deployment, at `url`."""
    spec = config.deployments[name].model_copy(update={"url": url, "api_key_file": key, "api_key_env": None})
    tiers = {tier: target.model_copy(update={"deployment": name, "fallbacks": ()}) for tier, target in config.tiers.items()}
    return config.model_copy(update={"deployments": {**config.deployments, name: spec}, "tiers": tiers})
