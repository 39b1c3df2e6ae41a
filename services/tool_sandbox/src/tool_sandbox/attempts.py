"""Remembers on the disk which tools with effects were begun, so that a crash does not leave a try that reads like nothing."""

import hashlib
import os
from pathlib import Path

from google.protobuf.message import DecodeError

from strata.audit.v1.audit_events_pb2 import StepRecorded


class Attempts:
    """One small file for each call that runs; what another start finds of an ended process was never resolved."""

    def __init__(self, folder: Path) -> None:
        """Keep the files in `folder`."""
        self._folder = folder

    def begin(self, attempted: StepRecorded) -> Path:
        """Keep the record of an attempt and return its file; it is on the disk before this returns."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        name = hashlib.sha256(attempted.record_id.encode()).hexdigest()[:32]
        path = self._folder / f"{os.getpid()}-{name}"
        with path.open("wb") as file:
            file.write(attempted.SerializeToString())
            file.flush()
            os.fsync(file.fileno())
        return path

    def end(self, path: Path) -> None:
        """Forget an attempt whose outcome is on record."""
        path.unlink(missing_ok=True)

    def abandoned(self) -> list[tuple[Path, StepRecorded]]:
        """Return the attempts of processes that have ended."""
        found = []
        for path in sorted(self._folder.iterdir()) if self._folder.is_dir() else ():
            owner = path.name.partition("-")[0]
            if not owner.isdecimal() or (_runs(int(owner)) and int(owner) != os.getpid()):
                continue
            try:
                found.append((path, StepRecorded.FromString(path.read_bytes())))
            except (OSError, DecodeError):
                path.unlink(missing_ok=True)
        return found


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
