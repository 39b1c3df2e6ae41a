"""Reads a text once for every head that looks at it: disguises undone, cut into parts, embedded in one pass."""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Lock

from encoders.encoder import Embedder, Vectors
from encoders.features import NgramHasher, SparseRows
from encoders.normalise import normalise
from encoders.windows import CHANNELS, USER, parts_of

_KEPT = 64
# Of what is longer nobody says that it was read; reading takes time with the length.
LONGEST = 240_000


@dataclass(frozen=True)
class Reading:
    """What is embedded of one text of one channel, and how many invisible characters the text had."""

    channel: str
    parts: Sequence[str]
    invisible: int
    _counted: dict[NgramHasher, SparseRows] = field(default_factory=dict, repr=False, compare=False)
    _lock: Lock = field(default_factory=Lock, repr=False, compare=False)

    def grams(self, hasher: NgramHasher) -> SparseRows:
        """Return the n-grams of the parts; heads with the same hasher pay for them once."""
        with self._lock:
            if hasher not in self._counted:
                self._counted[hasher] = hasher.rows(self.parts)
            return self._counted[hasher]


def read(text: str, channel: str = USER) -> Reading:
    """Undo disguises and cut `text` into parts; ValueError beyond `LONGEST` or for a channel not `user`, `document` or `tool`."""
    if channel not in CHANNELS:
        raise ValueError(f"unknown channel {channel!r}; known: {sorted(CHANNELS)}")
    if len(text) > LONGEST:
        raise ValueError(f"a text of {len(text)} characters is not read; the most are {LONGEST}")
    found = normalise(text)
    return Reading(channel, parts_of(found, channel), found.invisible)


class Reader:
    """Remembers the last 64 readings with their vectors, so that checks side by side pay for one pass."""

    def __init__(self, encoder: Embedder) -> None:
        """Embed with `encoder`."""
        self._encoder = encoder
        self._known: OrderedDict[bytes, Future[tuple[Reading, Vectors]]] = OrderedDict()
        self._lock = Lock()

    def read(self, text: str, channel: str = USER) -> tuple[Reading, Vectors]:
        """Return the reading and its vectors (one row per part); a second caller waits for the first; ValueError as `read`."""
        key = hashlib.sha256(f"{channel}:{text}".encode(errors="surrogatepass")).digest()
        with self._lock:
            mine = key not in self._known
            found = self._known.setdefault(key, Future())
            self._known.move_to_end(key)
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)
        if mine:
            try:
                reading = read(text, channel)
                found.set_result((reading, self._encoder.encode(reading.parts)))
            except BaseException as error:
                with self._lock:
                    self._known.pop(key, None)
                found.set_exception(error)
                raise
        return found.result()
