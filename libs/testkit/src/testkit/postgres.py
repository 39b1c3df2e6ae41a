"""A real PostgreSQL with logical decoding switched on, in a folder of its own on a free port."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testkit.ports import free_port

_SUPERUSER = "postgres"
# How long a loaded machine may take for what takes seconds.
_PATIENCE_SECONDS = 120
_CONFIGURATION = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
wal_level = logical
max_wal_senders = 20
max_replication_slots = 20
shared_buffers = 16MB
fsync = off
max_wal_size = 256MB
log_min_messages = warning
"""


def postgres_binaries() -> Path | None:
    """Return the folder of PostgreSQL's binaries: STRATA_TEST_POSTGRES_BIN, PATH or Debian's newest; None without any."""
    named = os.environ.get("STRATA_TEST_POSTGRES_BIN")
    found = shutil.which("initdb")
    folders = [Path(named)] if named else [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    needed = ("initdb", "postgres", "pg_isready", "createdb")
    return next((folder for folder in folders if all((folder / name).exists() for name in needed)), None)


def _owner() -> pwd.struct_passwd:
    """Return who runs the server, which refuses to be run by root."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid())
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError("root cannot run PostgreSQL, and there is no user postgres or nobody")


@dataclass
class PostgresServer:
    """A running server that a test may kill and start again on the same port and data."""

    folder: Path
    binaries: Path
    port: int
    process: subprocess.Popen[bytes] | None = field(default=None)

    def _run(self, name: str, *arguments: str) -> None:
        subprocess.run([self.binaries / name, *arguments], check=True, capture_output=True, cwd=self.folder, **self._identity())

    def _identity(self) -> dict[str, Any]:
        owner = _owner()
        if os.geteuid() != 0:
            return {}
        return {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}

    def create(self) -> None:
        """Make the data folder."""
        self._run("initdb", "-D", "data", "-A", "trust", "-U", _SUPERUSER, "--no-sync", "-E", "UTF8", "--locale=C")
        with (self.folder / "data" / "postgresql.conf").open("a") as file:
            file.write(_CONFIGURATION + f"port = {self.port}\n")

    def start(self) -> None:
        """Start the server and wait until it answers; raise RuntimeError when it does not."""
        log = self.folder / "postgres.log"
        with log.open("ab") as output:
            command = [str(self.binaries / "postgres"), "-D", "data"]
            self.process = subprocess.Popen(command, stdout=output, stderr=output, cwd=self.folder, **self._identity())
        deadline = time.monotonic() + _PATIENCE_SECONDS
        ready = [str(self.binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port), "-U", _SUPERUSER]
        while time.monotonic() < deadline and self.process.poll() is None:
            if subprocess.run(ready, check=False).returncode == 0:
                return
            time.sleep(0.05)
        raise RuntimeError(log.read_text(errors="replace")[-4000:])

    def kill(self) -> None:
        """End the server as a crash would: at once, connections cut."""
        self._end(signal.SIGQUIT)

    def stop(self) -> None:
        """End the server cleanly, whoever is connected."""
        self._end(signal.SIGINT)

    def _end(self, how: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(timeout=_PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.send_signal(signal.SIGQUIT)
                self.process.wait(timeout=_PATIENCE_SECONDS)

    def dsn(self, database: str, user: str = _SUPERUSER) -> str:
        """Return the connection string of a database."""
        return f"host=127.0.0.1 port={self.port} user={user} dbname={database}"

    def create_database(self, name: str) -> str:
        """Create an empty database; return its connection string."""
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", _SUPERUSER, name)
        return self.dsn(name)


def _memory() -> Path | None:
    """Return a folder in memory with room for a database; a container's is often too small."""
    memory = Path("/dev/shm")  # noqa: S108 - the folder below it has a name of its own
    return memory if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 4 * 1024**3 else None


@contextmanager
def postgres_server(binaries: Path) -> Iterator[PostgresServer]:
    """Run a server in a temporary folder that its user can reach, which pytest's own is not for root."""
    folder = Path(tempfile.mkdtemp(prefix="strata-postgres-", dir=_memory()))
    server = PostgresServer(folder, binaries, free_port())
    try:
        if os.geteuid() == 0:
            owner = _owner()
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        server.create()
        server.start()
        yield server
    finally:
        # Its data goes with it, so a clean end would be time lost.
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)
