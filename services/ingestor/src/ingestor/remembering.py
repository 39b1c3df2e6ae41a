"""An encoder that is asked for no text twice, and what it was asked for when it may not be asked any more."""

from collections.abc import Mapping, Sequence

import numpy as np

from encoders.encoder import Vectors
from knowledge.preparation import Embeds


class UnknownTextError(Exception):
    """Raised for a text whose vector nobody has asked for yet."""


class Remembered:
    """Vectors that are there already; asks for none."""

    def __init__(self, vectors: Mapping[str, Vectors]) -> None:
        """Answer from `vectors`, by text."""
        self._vectors = vectors

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return float32 unit vectors (n, 384), one row per text, in order; raise UnknownTextError where one is not there."""
        try:
            return np.array([self._vectors[text] for text in texts], dtype=np.float32)
        except KeyError as error:
            raise UnknownTextError from error


class Remembering:
    """Asks an encoder for what it was not asked for before."""

    def __init__(self, encoder: Embeds) -> None:
        """Know nothing yet."""
        self._encoder, self._vectors = encoder, dict[str, Vectors]()
        self.known = Remembered(self._vectors)

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return float32 unit vectors (n, 384), one row per text, in order."""
        if missing := [text for text in dict.fromkeys(texts) if text not in self._vectors]:
            self._vectors.update(zip(missing, self._encoder.encode(missing), strict=True))
        return self.known.encode(texts)
