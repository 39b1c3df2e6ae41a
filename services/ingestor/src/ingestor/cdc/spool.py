"""Vectors that are not in the index yet, in a file, so that a crash or an index that is away costs no second embedding."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from encoders.encoder import DIMENSIONS
from ingestor.library import Embedded

_DIGEST_BYTES = 32
_RECORD_BYTES = _DIGEST_BYTES + 4 * DIMENSIONS
# While the index is away the same texts are tried again; more than this never wait.
_MOST = 4096


class VectorSpool:
    """A file of records of one size, written by one thread; what a crash left half written is not read."""

    def __init__(self, file: Path) -> None:
        """Take over what `file` holds."""
        self._file = file.open("a+b", buffering=0)
        self._file.seek(0)
        found = self._file.read()
        whole = len(found) - len(found) % _RECORD_BYTES
        self._file.truncate(whole)
        records = [found[at : at + _RECORD_BYTES] for at in range(0, whole, _RECORD_BYTES)]
        self._vectors = {record[:_DIGEST_BYTES]: _numbers(record[_DIGEST_BYTES:]) for record in records}

    def known(self, encoder: str, texts: Sequence[str]) -> dict[str, list[float]]:
        """Return the vectors of those texts that this encoder has embedded."""
        digests = {text: _digest(encoder, text) for text in texts}
        return {text: self._vectors[digest] for text, digest in digests.items() if digest in self._vectors}

    def add(self, embedded: Embedded) -> None:
        """Keep vectors until `clear`."""
        if len(self._vectors) >= _MOST:
            self.clear()
        fresh = {_digest(embedded.encoder, text): vector for text, vector in embedded.vectors.items()}
        # One write: a process that is killed leaves whole records behind, and at most one that is not.
        self._file.write(b"".join(digest + np.asarray(vector, dtype="<f4").tobytes() for digest, vector in fresh.items()))
        self._vectors |= fresh

    def clear(self) -> None:
        """Forget everything: the index has it."""
        self._file.truncate(0)
        self._vectors.clear()

    def close(self) -> None:
        """Close the file; what it holds stays for the next one."""
        self._file.close()


def _digest(encoder: str, text: str) -> bytes:
    return hashlib.sha256(f"{encoder}\n{text}".encode(errors="surrogatepass")).digest()


def _numbers(record: bytes) -> list[float]:
    numbers: list[float] = np.frombuffer(record, dtype="<f4").tolist()
    return numbers
