"""A real OpenSearch node with TLS and users, started once and shared by the tests that need one."""

import base64
import os
import shutil
import signal
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from testkit.ports import free_port
from testkit.vllm import repository

ABSENT = (
    "OpenSearch tests skipped: there is no ../shared/opensearch beside the repository; name such a folder in "
    "STRATA_TEST_OPENSEARCH_HOME, or a cluster in STRATA_TEST_OPENSEARCH_URL, _CA, _USER and _PASSWORD_FILE"
)
_START_SECONDS = float(os.environ.get("STRATA_TEST_OPENSEARCH_START_SECONDS", "300"))
_STOP_SECONDS = 30
# Nodes talk to each other on a port so far above that of HTTP.
_TRANSPORT = 100
# A node that lives for a minute never earns back what the second compiler costs: a start takes 34 s of the processor's time, not 56.
QUICK_START = "-Xms512m -Xmx512m -XX:TieredStopAtLevel=1"
# A test run that is killed stops nothing; this ends the node soon after.
_WATCHMAN = 'while kill -0 "$0" && kill -0 "$1"; do sleep 2; done 2>/dev/null; kill -0 "$0" 2>/dev/null || { kill "$1"; rm -rf "$2"; }'


@dataclass
class OpenSearchNode:
    """A cluster and its administrator; one that we started can be killed and started again on the same data."""

    url: str
    ca_file: Path | None
    user: str
    password_file: Path
    command: list[str] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = field(default=None)
    java_options: str = ""

    @property
    def ours(self) -> bool:
        """Whether a test may kill it."""
        return bool(self.command)

    def start(self) -> None:
        """Start the node and wait until it answers its administrator; raise RuntimeError when it does not."""
        log = self.password_file.with_name("node.log")
        with log.open("ab") as output:
            options = {"OPENSEARCH_JAVA_OPTS": self.java_options} if self.java_options else {}
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, env={**os.environ, **options}
            )
        watch = ["sh", "-c", _WATCHMAN, str(os.getpid()), str(self.process.pid), str(log.parent)]
        subprocess.Popen(watch, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            if self._answers():
                return
            time.sleep(0.25)
        self.stop()
        raise RuntimeError(f"OpenSearch did not start within {_START_SECONDS:.0f} s:\n" + log.read_text(errors="replace")[-4000:])

    def kill(self) -> None:
        """End the node without warning, as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> None:
        """End the node."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def _answers(self) -> bool:
        if self.ca_file is None or not (self.ca_file.exists() and self.password_file.exists()):
            return False
        token = base64.b64encode(f"{self.user}:{self.password_file.read_text().strip()}".encode()).decode()
        request = urllib.request.Request(f"{self.url}/_cluster/health", headers={"Authorization": f"Basic {token}"})  # noqa: S310 - https
        try:
            context = ssl.create_default_context(cafile=str(self.ca_file))
            with urllib.request.urlopen(request, timeout=5, context=context):  # noqa: S310 - https, to ourselves
                return True
        except (urllib.error.URLError, OSError):
            return False


def opensearch_home() -> Path | None:
    """Return the folder whose `node` starts a real node; None where there is none."""
    home = Path(os.environ.get("STRATA_TEST_OPENSEARCH_HOME") or repository().parent / "shared" / "opensearch")
    return home if (home / "node").is_file() else None


def running_opensearch() -> OpenSearchNode | None:
    """Return the cluster that whoever runs the tests started already; None without one."""
    url = os.environ.get("STRATA_TEST_OPENSEARCH_URL")
    if not url:
        return None
    ca = os.environ.get("STRATA_TEST_OPENSEARCH_CA")
    password = Path(os.environ.get("STRATA_TEST_OPENSEARCH_PASSWORD_FILE", "admin.password"))
    return OpenSearchNode(url, Path(ca) if ca else None, os.environ.get("STRATA_TEST_OPENSEARCH_USER", "admin"), password)


@contextmanager
def opensearch_node(home: Path, *, java_options: str = "") -> Iterator[OpenSearchNode]:
    """Run a node from `home` on a free port; its data goes with it. Without `java_options` the machine is as in production."""
    # The node runs as another user, who may not enter the folders that pytest makes.
    folder = Path(tempfile.mkdtemp(prefix="strata-opensearch-"))
    folder.chmod(0o755)
    port = free_port(beside=_TRANSPORT)
    command = [str(home / "node"), str(folder), str(port)]
    node = OpenSearchNode(
        f"https://127.0.0.1:{port}", folder / "ca.pem", "admin", folder / "admin.password", command, java_options=java_options
    )
    try:
        node.start()
        yield node
    finally:
        node.stop()
        shutil.rmtree(folder, ignore_errors=True)
