"""Who writes the log: the one holder of a lease, with a number by which files tell a former holder from the present one."""

import asyncio
import fcntl
import json
import os
import shutil
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from nats.errors import Error as NatsError
from nats.js.errors import Error as JetStreamError
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue

from audit import checkpoints, segments
from chassis.file_locks import try_lock
from chassis.logging import get_logger

log = get_logger("lease")
_KEY = "audit.writer"
_LOCK_FILE, _EPOCH_FILE = "writer.lock", "epoch"
_UNKNOWN = -1
_RELEASE_ATTEMPTS = 3


class LeaseLostError(OSError):
    """Another process writes the log now."""


class Lease:
    """One process's claim to the log; it ends when it is not renewed, and a later holder's number ends it too."""

    def __init__(self, bucket: KeyValue, folder: Path, *, seconds: float, host: str = "") -> None:
        """Touch nothing before `acquire`; `folder` is shared by all who may write the log, and is none of the log's own."""
        self._bucket, self._folder, self._seconds = bucket, folder, seconds
        self._host = host or socket.gethostname()
        self._revision, self._renewed = 0, 0.0
        self._watched: tuple[int, float] = (_UNKNOWN, 0.0)
        self._lock: BinaryIO | None = None
        self.epoch = 0

    async def acquire(self, log_folder: Path) -> bool:
        """Try once; True when the lease is ours. Raises NATS errors while the bus is away."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        revision, held = await self._read()
        lock = try_lock(self._folder / _LOCK_FILE)
        # Who held the lease on this machine held the lock too, and a lock ends with its process.
        is_gone = not held.get("holder") or (lock is not None and held.get("host") == self._host) or self._is_stale(revision)
        if not is_gone or not await self._take(revision, max(int(held.get("epoch", 0)), self._written_epoch()) + 1):
            if lock is not None:
                lock.close()
            return False
        self._fence(log_folder, replace_files=lock is None)
        self._lock = lock if lock is not None else _new_lock(self._folder / _LOCK_FILE)
        log.info("lease_acquired", epoch=self.epoch)
        return True

    async def _read(self) -> tuple[int, dict[str, Any]]:
        try:
            entry = await self._bucket.get(_KEY)
        except KeyNotFoundError as error:
            # A deleted key still has a revision, on which the next one builds.
            return (error.entry.revision or 0) if error.entry is not None else 0, {}
        return entry.revision or 0, json.loads(entry.value or b"{}")

    def _is_stale(self, revision: int) -> bool:
        """Tell whether the holder has not renewed for as long as the lease lasts, by this machine's own clock."""
        now = time.monotonic()
        if self._watched[0] != revision:
            self._watched = (revision, now)
        return now - self._watched[1] > self._seconds

    async def _take(self, revision: int, epoch: int) -> bool:
        began = time.monotonic()
        try:
            self._revision = await self._bucket.update(_KEY, self._value(epoch), last=revision)
        except JetStreamError:
            return False
        self.epoch, self._renewed = epoch, began
        return True

    def _value(self, epoch: int) -> bytes:
        return json.dumps({"holder": os.getpid(), "host": self._host, "epoch": epoch}).encode()

    def _written_epoch(self) -> int:
        with suppress(OSError, ValueError):
            return int((self._folder / _EPOCH_FILE).read_text())
        return 0

    def _fence(self, log_folder: Path, *, replace_files: bool) -> None:
        """Say in the shared folder who writes now; copy the files at the end where a former holder may still have them open."""
        temporary = self._folder / f".{_EPOCH_FILE}.{os.getpid()}"
        with temporary.open("w") as file:
            file.write(str(self.epoch))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._folder / _EPOCH_FILE)
        segments.sync_folder(self._folder)
        if replace_files:
            files = [*segments.list_segments(log_folder)[-1:], log_folder / checkpoints.SIGNED, log_folder / checkpoints.COSIGNED]
            for path in files:
                if path.exists():
                    _replace_with_copy(path)

    async def renew(self) -> bool:
        """Prolong the lease; False when it is lost for good."""
        began = time.monotonic()
        try:
            self._revision = await self._bucket.update(_KEY, self._value(self.epoch), last=self._revision)
        except JetStreamError:
            # The answer to an earlier renewal may have been lost on its way.
            revision, held = await self._read()
            if not self._is_ours(held):
                return False
            self._revision = revision
        self._renewed = began
        return True

    def _is_ours(self, held: dict[str, Any]) -> bool:
        return held.get("epoch") == self.epoch and held.get("holder") == os.getpid() and held.get("host") == self._host

    def check(self) -> None:
        """Raise LeaseLostError when this process may not write: its time is over, or the files name another."""
        if time.monotonic() - self._renewed > self._seconds:
            raise LeaseLostError("the lease on the audit log was not renewed in time")
        if self._written_epoch() != self.epoch:
            raise LeaseLostError(f"writer {self._written_epoch()} of the audit log has taken over from writer {self.epoch}")

    async def keep(self) -> None:
        """Renew until cancelled, or return when the lease is lost; the bus being away only ends it for a while."""
        while True:
            await asyncio.sleep(self._seconds / 4)
            try:
                if not await self.renew():
                    log.warning("lease_lost", epoch=self.epoch)
                    self._renewed = 0.0
                    return
            except (TimeoutError, NatsError) as error:
                log.warning("lease_not_renewed", error=repr(error))

    async def release(self) -> None:
        """Let another take over at once."""
        with suppress(TimeoutError, NatsError, JetStreamError):
            if self._written_epoch() == self.epoch:
                await self._give_up()
        self._renewed = 0.0
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    async def _give_up(self) -> None:
        """Leave the entry without a holder; a renewal cut off on its way may have raised the revision."""
        for _ in range(_RELEASE_ATTEMPTS):
            revision, held = await self._read()
            if not self._is_ours(held):
                return
            with suppress(KeyWrongLastSequenceError):
                await self._bucket.update(_KEY, json.dumps({"epoch": self.epoch}).encode(), last=revision)
                return


def _new_lock(path: Path) -> BinaryIO:
    """Put a lock of our own in the place of one that a former holder does not give up."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    file = temporary.open("ab")
    fcntl.flock(file, fcntl.LOCK_EX)
    temporary.replace(path)
    return file


def _replace_with_copy(path: Path) -> None:
    """Give a file's name to a copy, so that writes through files opened before go nowhere."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with path.open("rb") as source, temporary.open("wb") as target:
        shutil.copyfileobj(source, target, 1024 * 1024)
        target.flush()
        os.fsync(target.fileno())
    temporary.replace(path)
    segments.sync_folder(path.parent)
