"""A real vLLM on the exported base model, started once and shared by the tests that need one."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):  # noqa: S310 - http, to ourselves
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise RuntimeError(f"vLLM did not start within {_START_SECONDS:.0f} s:\n" + log.read_text(errors="replace")[-4000:])


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
    port = _free_port()
    environment = {
        **os.environ,
        "STRATA_STATE_DIR": str(folder),
        "STRATA_HOME": str(repository()),
        "STRATA_PORT_OFFSET": str(port - VLLM_PORT),
        "STRATA_INFERENCE_MODELS_DIR": str(model_cache()),
    }
    log = folder / "vllm.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "inference.engine"], env=environment, stdout=output, stderr=output, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(url, process, log)
        yield Vllm(url, api_key)
    finally:
        # Its workers are processes of their own, all in one group.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
