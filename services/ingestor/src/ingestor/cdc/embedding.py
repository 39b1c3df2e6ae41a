"""The second lane: gives chunks their vectors in batches, while the first lane goes on without them."""

import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from prometheus_client import Counter, Gauge

from chassis.logging import get_logger
from ingestor.library import Library

log = get_logger("ingestor")
EMBEDDED = Counter("strata_knowledge_embedded_total", "Texts embedded for change events.")
WAITING = Gauge("strata_knowledge_without_vector", "Documents of which a chunk waits for its vector; words find them already.")
_RETRY_SECONDS = 1.0
_NICENESS = 10


class EmbeddingLane:
    """A thread between what waits and the encoder; what it holds is bounded, the index knows the rest."""

    def __init__(self, library: Library, *, batch: int, bound: int, embedded: Callable[[Mapping[str, tuple[str, ...]]], None]) -> None:
        """Embed `batch` texts at a time; `embedded` is told the texts by document key once the index has their vectors."""
        self._library, self._batch, self._bound, self._embedded = library, batch, bound, embedded
        self._waiting: dict[str, tuple[str, ...]] = {}
        self._changed = threading.Condition()
        # What a former process left without vectors is found in the index.
        self._more_in_index, self._stopping, self._busy = True, False, False
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="encoder", initializer=_yield_to_others)
        self._thread = threading.Thread(target=self._run, name="embedding", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """End after the batch that runs now."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(seconds)
        self._encoder.shutdown(wait=False, cancel_futures=True)

    def offer(self, waiting: Mapping[str, tuple[str, ...]], gone: list[str]) -> None:
        """Take texts by document key; a later text of a document takes the place of one that nobody got to."""
        with self._changed:
            for key in gone:
                self._waiting.pop(key, None)
            for key, texts in waiting.items():
                if key in self._waiting or len(self._waiting) < self._bound:
                    self._waiting[key] = texts
                else:
                    self._more_in_index = True
            WAITING.set(len(self._waiting))
            self._changed.notify_all()

    def idle(self) -> bool:
        """Return whether nothing waits."""
        with self._changed:
            return not self._waiting and not self._busy and not self._more_in_index

    @property
    def pending(self) -> int:
        """Documents that wait, as far as they are held here."""
        return len(self._waiting)

    def _run(self) -> None:
        while (batch := self._take()) is not None:
            try:
                self._fill(batch)
            except Exception:
                # The texts are still in the index without vectors.
                log.exception("embedding_failed")
                self._more_in_index = True
                threading.Event().wait(_RETRY_SECONDS)
            self._busy = False

    def _take(self) -> dict[str, tuple[str, ...]] | None:
        """Wait for texts and return a batch of them; None when it is time to stop."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or bool(self._waiting) or self._more_in_index)
                if self._stopping:
                    return None
                self._busy = True
                batch: dict[str, tuple[str, ...]] = {}
                while self._waiting and sum(map(len, batch.values())) < self._batch:
                    key = next(iter(self._waiting))
                    batch[key] = self._waiting.pop(key)
                WAITING.set(len(self._waiting))
                if batch:
                    return batch
                self._more_in_index = False
            self._look()

    def _look(self) -> None:
        try:
            found = self._library.waiting(self._bound)
        except Exception:
            log.exception("embedding_failed")
            self._more_in_index = True
            threading.Event().wait(_RETRY_SECONDS)
            found = {}
        self.offer(found, [])
        self._busy = bool(found)

    def _fill(self, batch: Mapping[str, tuple[str, ...]]) -> None:
        texts = list(dict.fromkeys(text for some in batch.values() for text in some))
        embedded = self._encoder.submit(self._library.encode, texts).result()
        EMBEDDED.inc(len(texts))
        if self._library.fill(list(batch), embedded):
            self._embedded(batch)
        else:
            self._more_in_index = True


def _yield_to_others() -> None:
    """Let queries and the first lane have the processor first; what holds the index's lock runs on another thread."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
