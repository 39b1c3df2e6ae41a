"""Where a stack lives: its state folder, its repository and its ports."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.identities import BY_NAME


def repository() -> Path:
    """Return the folder that holds domains/ and models/: STRATA_HOME, or the checkout this command was installed from."""
    if home := os.environ.get("STRATA_HOME"):
        return Path(home).resolve()
    return Path(__file__).resolve().parents[4]


@dataclass(frozen=True)
class Place:
    """One stack's state folder and the ports it was started on."""

    state_dir: Path
    port_offset: int

    @property
    def stack_file(self) -> Path:
        """File in which the supervisor tells what runs."""
        return self.state_dir / "run" / "stack.json"

    @property
    def gateway_url(self) -> str:
        """URL of the gateway."""
        return f"http://127.0.0.1:{BY_NAME['gateway'].http_port + self.port_offset}"

    def stack(self) -> dict[str, Any] | None:
        """Return what the supervisor last told, or None before the first start."""
        try:
            content: dict[str, Any] = json.loads(self.stack_file.read_text())
        except (OSError, ValueError):
            return None
        return content

    def environment(self) -> dict[str, str]:
        """Return the environment under which services of this stack run."""
        return {
            **os.environ,
            "STRATA_STATE_DIR": str(self.state_dir),
            "STRATA_HOME": str(repository()),
            "STRATA_PORT_OFFSET": str(self.port_offset),
            "PYTHONUNBUFFERED": "1",
            # One compute thread a process: the services share the machine with the engine.
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        }

    def apply(self) -> None:
        """Let settings read in this process find the same stack."""
        os.environ.update(self.environment())


def at(state: Path, offset: int | None = None) -> Place:
    """Return the stack under `state`; without an offset, on the ports it was last started on."""
    state = state.resolve()
    if offset is None:
        known = Place(state, 0).stack()
        offset = int(known["port_offset"]) if known else 0
    return Place(state, offset)
