"""The second lane: gives chunks their vectors in batches, while the first lane goes on without them."""

import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from prometheus_client import Counter, Gauge

from chassis.logging import get_logger
from ingestor.cdc.declaration import FeedSettings
from ingestor.cdc.spool import VectorSpool
from ingestor.library import Embedded, Library

log = get_logger("ingestor")
EMBEDDED = Counter("strata_knowledge_embedded_total", "Texts embedded for change events.")
WAITING = Gauge("strata_knowledge_without_vector", "Documents of which a chunk waits for its vector; words find them already.")
_RETRY_SECONDS = 1.0
_NICENESS = 10
# What a crash can cost: texts that the encoder was asked for and did not answer.
_PORTION = 4
# Every filling is a commit of the index, so that a few texts are gathered first.
_GATHER_SECONDS = 0.25
# A first lane that works for more than this share of its time falls behind beside an encoder. That rests until there was no such
# group for a while, and is asked for one portion now and then, so that no text waits for ever.
_HURRIED = 0.5
_REST_SECONDS, _PATIENCE_SECONDS = 0.5, 1.0


class EmbeddingLane:
    """A thread between what waits and the encoder; what it holds is bounded, the index knows the rest."""

    def __init__(
        self, library: Library, spool: Path, settings: FeedSettings, embedded: Callable[[Mapping[str, tuple[str, ...]]], None]
    ) -> None:
        """Keep vectors in the file `spool` until the index has them; then `embedded` is told the texts by document key."""
        self._library, self._spool, self._embedded = library, VectorSpool(spool), embedded
        self._batch, self._bound = settings.embed_batch, settings.embed_bound
        self._filled = 0.0
        self._waiting: dict[str, tuple[str, ...]] = {}
        self._changed = threading.Condition()
        # What a former process left without vectors is found in the index.
        self._more_in_index, self._stopping, self._busy = True, False, False
        self._resting_until = 0.0
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="encoder", initializer=yield_to_others)
        self._thread = threading.Thread(target=self._run, name="embedding", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """End after the batch that runs now; what it embedded stays in the spool."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(seconds)
        self._encoder.shutdown(wait=False, cancel_futures=True)
        self._spool.close()

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

    def give_way(self, worked: float, period: float) -> None:
        """Hear for how many seconds the first lane worked on a group, and how long ago the one before began."""
        if worked > _HURRIED * period:
            # At least until the next group is through, which on a slow engine takes longer.
            self._resting_until = time.monotonic() + max(_REST_SECONDS, 2 * worked)

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
                gather = max(self._filled + _GATHER_SECONDS - time.monotonic(), 0.0)
                self._changed.wait_for(lambda: self._stopping or len(self._waiting) >= self._batch, gather)
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
        if (embedded := self._vectors(texts)) is not None and self._library.fill(list(batch), embedded):
            self._embedded(batch)
        else:
            self._more_in_index = True
        self._spool.clear()
        self._filled = time.monotonic()

    def _vectors(self, texts: list[str]) -> Embedded | None:
        """Return the vectors of texts; None where another encoder has come into use meanwhile."""
        space = self._library.space
        vectors = self._spool.known(space, texts)
        missing = [text for text in texts if text not in vectors]
        for first in range(0, len(missing), _PORTION):
            self._rest()
            portion = missing[first : first + _PORTION]
            embedded = self._encoder.submit(self._library.encode, portion).result()
            EMBEDDED.inc(len(portion))
            if embedded.encoder != space:
                return None
            self._spool.add(embedded)
            vectors |= embedded.vectors
        return Embedded(space, vectors)

    def _rest(self) -> None:
        """Leave the processor to the first lane while that is in a hurry, but not for long."""
        most = time.monotonic() + _PATIENCE_SECONDS
        with self._changed:
            while not self._stopping and (left := min(self._resting_until, most) - time.monotonic()) > 0:
                self._changed.wait(left)


def yield_to_others() -> None:
    """Let queries and the first lane have the processor before this thread and those that it starts."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
