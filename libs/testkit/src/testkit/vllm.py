"""A real vLLM on the exported base model, started once and shared by the tests that need one."""

import json
import os
import secrets
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from chassis.child_servers import free_port, running
from contracts.identities import VLLM_PORT

BASE_MODEL = "smollm2-135m"
_START_SECONDS = float(os.environ.get("STRATA_TEST_VLLM_START_SECONDS", "600"))


@dataclass(frozen=True)
class Vllm:
    """A running engine."""

    url: str
    api_key: str

    def models(self) -> list[str]:
        """Return what the engine serves."""
        request = urllib.request.Request(f"{self.url}/v1/models", headers={"Authorization": f"Bearer {self.api_key}"})  # noqa: S310 - http
        with urllib.request.urlopen(request, timeout=5) as response:  # noqa: S310 - http, to ourselves
            return [str(model["id"]) for model in json.load(response)["data"]]


def repository() -> Path:
    """Return the repository that this package is installed from."""
    return Path(__file__).resolve().parents[4]


def model_cache() -> Path:
    """Return the folder in which exported base models are kept between runs."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "strata" / "models"
    return Path(os.environ.get("STRATA_INFERENCE_MODELS_DIR", default))


def running_vllm() -> Vllm | None:
    """Return the engine that whoever runs the tests started already, with the key in STRATA_TEST_VLLM_API_KEY; None without one."""
    url = os.environ.get("STRATA_TEST_VLLM_URL")
    return Vllm(url.rstrip("/"), os.environ.get("STRATA_TEST_VLLM_API_KEY", "")) if url else None


@contextmanager
def vllm_server(folder: Path) -> Iterator[Vllm]:
    """Run the engine of the shipped configuration on a free port, with the adapters that exist; stop it by its process group."""
    api_key = secrets.token_urlsafe(16)
    key_file = folder / "credentials" / "inference" / "engine.key"
    key_file.parent.mkdir(parents=True, exist_ok=True)
    key_file.write_text(api_key)
    port = free_port()
    environment = {
        "STRATA_STATE_DIR": str(folder),
        "STRATA_HOME": str(repository()),
        "STRATA_PORT_OFFSET": str(port - VLLM_PORT),
        "STRATA_INFERENCE_MODELS_DIR": str(model_cache()),
    }
    url, command = f"http://127.0.0.1:{port}", [sys.executable, "-m", "inference.engine"]
    with running(command, environment, ready_url=f"{url}/health", log=folder / "vllm.log", start_seconds=_START_SECONDS):
        yield Vllm(url, api_key)
