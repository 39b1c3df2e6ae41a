"""Remembers vectors on disk, so that training embeds each text once."""

import hashlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from encoders.encoder import DIMENSIONS, Encoder, Vectors

_CHUNK = 512


class VectorCache:
    """A SQLite file of vectors in front of an encoder; for training, not for service."""

    def __init__(self, encoder: Encoder, file: Path) -> None:
        """Open or create `file`."""
        file.parent.mkdir(parents=True, exist_ok=True)
        self._encoder = encoder
        self._store = sqlite3.connect(file, timeout=60)
        self._store.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB)")

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return float32 unit vectors (n, 384), computing only those never seen."""
        keys = [self._key(text) for text in texts]
        missing = {key: text for key, text in zip(keys, texts, strict=True) if self._read(key) is None}
        pending = sorted(missing, key=lambda key: len(missing[key]))
        for start in range(0, len(pending), _CHUNK):
            chunk = pending[start : start + _CHUNK]
            vectors = self._encoder.encode([missing[key] for key in chunk])
            rows = [(key, vector.tobytes()) for key, vector in zip(chunk, vectors, strict=True)]
            with self._store:
                self._store.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?)", rows)
        found = [self._read(key) for key in keys]
        return np.array([row for row in found if row is not None], dtype=np.float32).reshape(-1, DIMENSIONS)

    def _key(self, text: str) -> bytes:
        return hashlib.sha1(f"{self._encoder.identity.key()}|{text}".encode(), usedforsecurity=False).digest()

    def _read(self, key: bytes) -> Vectors | None:
        row = self._store.execute("SELECT vector FROM vectors WHERE key = ?", (key,)).fetchone()
        return None if row is None else np.frombuffer(row[0], dtype=np.float32)
