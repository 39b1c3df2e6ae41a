"""A whole stack for tests from outside: started, asked, hurt and stopped by the same command that people use."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chassis.errors import ServiceError
from cli.auditing import fetch
from cli.keys import create_key
from cli.place import at

ROOT = Path(__file__).resolve().parents[1]
GATEWAY_PORT = 8080


@dataclass
class Stack:
    """One running stack."""

    state: Path
    offset: int
    environment: dict[str, str] = field(default_factory=dict)
    keys: dict[tuple[str, str], str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """URL of the gateway."""
        return f"http://127.0.0.1:{GATEWAY_PORT + self.offset}"

    def strata(self, *arguments: str, check: bool = True, timeout: float = 900) -> subprocess.CompletedProcess[str]:
        """Run the `strata` command against this stack."""
        command = [sys.executable, "-m", "cli", *arguments, "--state", str(self.state)]
        models = {"STRATA_INFERENCE_MODELS_DIR": str(ROOT / ".cache" / "models")}
        environment = {**os.environ, "STRATA_HOME": str(ROOT), **models, **self.environment}
        result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=timeout, check=False)
        if check and result.returncode:
            raise AssertionError(f"{' '.join(arguments)}: exit {result.returncode}\n{result.stdout}\n{result.stderr}")
        return result

    def up(self, *arguments: str) -> None:
        """Start and wait until everything is ready."""
        self.strata("up", "--detach", "--offset", str(self.offset), *arguments)

    def down(self) -> None:
        """Stop everything."""
        self.strata("down", check=False)

    def processes(self) -> dict[str, dict[str, Any]]:
        """Return what `strata status` says of each process, without a start of the command, which takes two seconds."""
        told = at(self.state).stack()
        assert told is not None, "no supervisor has told what runs"
        return {process["name"]: process for process in told["processes"]}

    def kill(self, name: str) -> int:
        """End a process without warning and return the pid it had."""
        pid = int(self.processes()[name]["pid"])
        os.kill(pid, signal.SIGKILL)
        return pid

    def wait_ready(self, seconds: float = 300) -> None:
        """Wait until every process is ready again."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if all(process["ready"] for process in self.processes().values()):
                return
            time.sleep(0.3)
        raise AssertionError(f"not ready after {seconds} s: {self.processes()}")

    def key(self, tenant: str, role: str, *, nats: bool = False) -> str:
        """Return an API key, made once for each tenant and role."""
        if nats:
            made = self.strata("keys", "create", "--tenant", tenant, "--role", role, "--json", "--nats")
            self.keys[tenant, role] = json.loads(made.stdout)["key"]
        elif (tenant, role) not in self.keys:
            record = {"tenant": tenant, "role": role, "user": ""}
            self.keys[tenant, role] = asyncio.run(create_key(at(self.state), record)).plain
        return self.keys[tenant, role]

    def trace(self, identifier: str, *steps: str, seconds: float = 180) -> list[dict[str, Any]]:
        """Return the audit records of a request once they hold all of `steps`."""
        # In this process: a start of the command takes two seconds, and some tests look at fifty traces.
        deadline, problem = time.monotonic() + seconds, ""
        while True:
            try:
                records = [chained["record"] for chained in asyncio.run(fetch(at(self.state), identifier))]
            except ServiceError as error:
                records, problem = [], str(error)
            if set(steps) <= {record["step"] for record in records}:
                return records
            if time.monotonic() > deadline:
                raise AssertionError(f"{identifier}: {[r['step'] for r in records]} lacks some of {steps}; {problem}")
            time.sleep(0.3)
