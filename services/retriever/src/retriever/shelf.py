"""Keeps the index open with the encoder that its vectors are of: waits for it to be made, and follows every change and switch."""

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from prometheus_client import Gauge

from chassis.errors import FailedPreconditionError, UnavailableError
from chassis.logging import get_logger
from chassis.tasks import in_time
from encoders import Encoder, EncoderUnavailableError
from knowledge.backends import BackendSettings, open_index
from knowledge.generations import Generation, Generations
from knowledge.index import Index, IndexMissingError, Remembering

log = get_logger("retriever")
VERSION = Gauge("strata_knowledge_index_version", "Version of the index that queries see.", ["kind"])


@dataclass(frozen=True)
class Opened:
    """An index and the encoder of its vectors; queries take both together, so that two spaces never meet."""

    index: Index
    encoder: Encoder

    @property
    def key(self) -> str:
        """Identity of the encoder."""
        return self.encoder.identity.key()


class Shelf:
    """What another process writes: the index that is served, and which encoder's it is."""

    def __init__(self, backend: BackendSettings, state_dir: Path, installed: Encoder, *, threads: int) -> None:
        """Start with the installed encoder; another one is loaded when ingestor has switched to it."""
        self._backend, self._state_dir, self._installed, self._threads = backend, state_dir, installed, threads
        self._generations = Generations(state_dir / "knowledge")
        self._opened: Opened | None = None
        self._changed = asyncio.Event()
        self._lock = Lock()

    @property
    def ready(self) -> bool:
        """Whether the index is open."""
        return self._opened is not None

    def opened(self) -> Opened:
        """Return index and encoder; raise UnavailableError before they are made, FailedPreconditionError when they cannot be used."""
        return self._opened or self.look()

    def look(self) -> Opened:
        """Open what is served now, if that is not what is open."""
        with self._lock:
            wanted = self._wanted()
            if self._opened is None or self._opened.key != wanted.encoder:
                self._opened = self._open(wanted)
                log.info("index_opened", encoder=wanted.encoder)
            return self._opened

    def changed(self) -> None:
        """Look at the index now, not at the next poll."""
        self._changed.set()

    async def watch(self, poll_seconds: float) -> None:
        """Follow switches and versions of the index until cancelled."""
        while True:
            with contextlib.suppress(UnavailableError, FailedPreconditionError):
                opened = await asyncio.to_thread(self.look)
                if isinstance(opened.index, Remembering):
                    await asyncio.to_thread(opened.index.refresh)
                for kind, version in (await asyncio.to_thread(opened.index.versions)).items():
                    VERSION.labels(kind=kind).set(version)
            with contextlib.suppress(TimeoutError):
                await in_time(poll_seconds, self._changed.wait())
            self._changed.clear()

    def _wanted(self) -> Generation:
        state = self._generations.read()
        return state.serving if state else Generation(self._installed.identity.key())

    def _open(self, wanted: Generation) -> Opened:
        encoder = self._installed
        if encoder.identity.key() != wanted.encoder:
            encoder = self._load(wanted)
        try:
            return Opened(open_index(self._backend, self._state_dir, "retriever", wanted.encoder), encoder)
        except IndexMissingError as error:
            if error.found:
                raise FailedPreconditionError(str(error)) from error
            raise UnavailableError("the knowledge index is not built yet") from error

    def _load(self, wanted: Generation) -> Encoder:
        try:
            encoder = Encoder.load(Path(wanted.directory) if wanted.directory else None, threads=self._threads)
        except EncoderUnavailableError as error:
            raise FailedPreconditionError(f"the encoder {wanted.encoder!r} of the index cannot be loaded: {error}") from error
        if encoder.identity.key() != wanted.encoder:
            found = encoder.identity.key()
            raise FailedPreconditionError(
                f"the index is of encoder {wanted.encoder!r}, but {wanted.directory or 'installed'!r} holds {found!r}"
            )
        return encoder
