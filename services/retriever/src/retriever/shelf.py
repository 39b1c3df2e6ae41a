"""Keeps the index open: waits for it to be made, and notices every change of it."""

import asyncio
import contextlib
from pathlib import Path

from prometheus_client import Gauge

from chassis.errors import FailedPreconditionError, UnavailableError
from chassis.logging import get_logger
from knowledge.index import Index, IndexMissingError
from knowledge.lance import LanceIndex

log = get_logger("retriever")
VERSION = Gauge("strata_knowledge_index_version", "Version of the index that queries see.", ["kind"])


class Shelf:
    """The index of one encoder in a folder that another process writes."""

    def __init__(self, folder: Path, encoder: str) -> None:
        """Look for the index of `encoder` in `folder`."""
        self._folder, self._encoder = folder, encoder
        self._index: LanceIndex | None = None
        self._changed = asyncio.Event()

    @property
    def ready(self) -> bool:
        """Whether the index is open."""
        return self._index is not None

    def index(self) -> Index:
        """Return the index; raise UnavailableError before it is made, FailedPreconditionError when another encoder's is there."""
        if self._index is None:
            try:
                self._index = LanceIndex.open(self._folder, self._encoder)
            except IndexMissingError as error:
                if error.found:
                    raise FailedPreconditionError(str(error)) from error
                raise UnavailableError("the knowledge index is not built yet") from error
        return self._index

    def changed(self) -> None:
        """Look at the index now, not at the next poll."""
        self._changed.set()

    async def watch(self, poll_seconds: float) -> None:
        """Follow the versions of the index until cancelled."""
        while True:
            with contextlib.suppress(UnavailableError, FailedPreconditionError):
                versions = await asyncio.to_thread(lambda: self.index().versions())
                for kind, version in versions.items():
                    VERSION.labels(kind=kind).set(version)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), poll_seconds)
            self._changed.clear()
