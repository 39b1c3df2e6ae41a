"""Reads files in a process of its own, with a deadline; a file that breaks the process breaks nothing else."""

import json
import os
import subprocess
import sys
import threading
from dataclasses import asdict
from typing import Any

from chassis.errors import InvalidArgumentError, UnavailableError
from ingestor.parsing.parsed import Format, Limits, Parsed
from ingestor.parsing.worker import read_frame, write_frame

_DOCUMENTS_PER_WORKER = 500


class DocumentError(InvalidArgumentError):
    """A file cannot become a document; `code` says why."""


class DocumentParser:
    """Reads one file at a time; safe to call from several threads, which wait for each other."""

    def __init__(self, limits: Limits | None = None, *, timeout_seconds: float = 30.0) -> None:
        """Start nothing yet; the process starts with the first file."""
        self.limits = limits or Limits()
        self._timeout = timeout_seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._read = 0

    def parse(self, data: bytes, name: str, content_type: str = "") -> Parsed:
        """Return what a file says; raise DocumentError for one that cannot be read, UnavailableError when too many wait."""
        if len(data) > self.limits.file_bytes:
            raise DocumentError(f"{name!r} has {len(data)} bytes; the limit is {self.limits.file_bytes}", code="document_too_large")
        if not self._lock.acquire(timeout=2 * self._timeout):
            raise UnavailableError("too many documents wait to be read")
        try:
            answer = self._ask(data, name, content_type)
        finally:
            self._lock.release()
        if "code" in answer:
            raise DocumentError(f"{name!r}: {answer['message']}", code=answer["code"])
        return Parsed(**{**answer, "format": Format(answer["format"])})

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._stop()

    def _ask(self, data: bytes, name: str, content_type: str) -> dict[str, Any]:
        process = self._started()
        assert process.stdin is not None  # noqa: S101 - both are pipes
        assert process.stdout is not None  # noqa: S101
        request = {"name": name, "content_type": content_type, "limits": asdict(self.limits), "seconds": self._timeout}
        timer = threading.Timer(self._timeout, process.kill)
        timer.start()
        try:
            write_frame(process.stdin, json.dumps(request).encode())
            write_frame(process.stdin, data)
            answer: dict[str, Any] = json.loads(read_frame(process.stdout))
        except (EOFError, OSError, ValueError) as error:
            late = not timer.is_alive()
            self._stop()
            reason = f"reading it takes longer than {self._timeout:g} s" if late else "reading it ended the reader"
            raise DocumentError(f"{name!r}: {reason}", code="unreadable_document") from error
        finally:
            timer.cancel()
        return answer

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and (self._process.poll() is not None or self._read >= _DOCUMENTS_PER_WORKER):
            self._stop()
        if self._process is None:
            # The reader gets no credentials and no settings.
            environment = {name: os.environ[name] for name in ("PATH", "VIRTUAL_ENV", "PYTHONPATH") if name in os.environ}
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ingestor.parsing.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
            self._read = 0
        self._read += 1
        return self._process

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait(timeout=10)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    continue
