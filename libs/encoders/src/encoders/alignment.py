"""How well each piece of a claim finds its like in the evidence, by the encoder's own word vectors; costs no forward pass."""

from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from tokenizers import Tokenizer

from encoders.encoder import EncoderUnavailableError, default_directory
from encoders.pair_tokens import PairTokenizer, Table, unit_vectors

ALIGNMENT = (
    "soft_coverage",
    "exact_coverage",
    "worst_piece",
    "second_worst",
    "third_worst",
    "worst_three",
    "lost_weight",
    "phrase_coverage",
    "worst_phrases",
    "spread",
    "same_order",
    "evidence_used",
    "length_ratio",
    "lost_pieces",
)
_TABLE = "embeddings.word_embeddings.weight"
_FIRST_WORD = 1996
_LOST = 2.0
_EXACT = 0.999
Numbers = NDArray[np.float64]


class Aligner:
    """Compares pieces of words by static vectors; rare pieces weigh more."""

    def __init__(self, table: Table, tokens: PairTokenizer) -> None:
        """Take unit vectors (pieces, size) and the tokeniser that numbers the pieces."""
        self.table = table
        self.tokens = tokens
        # The vocabulary is sorted by frequency, which serves as well as counts do.
        rank = np.maximum(0, np.arange(len(table)) - _FIRST_WORD)
        self._weight = 0.1 + np.log1p(rank) * 0.6

    @classmethod
    def load(cls, directory: Path | None = None) -> Self:
        """Read the word vectors of the encoder; raise EncoderUnavailableError."""
        folder = default_directory() if directory is None else directory
        try:
            with safe_open(str(folder / "model.safetensors"), "np") as weights:
                table = weights.get_tensor(_TABLE).astype(np.float32)
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except (OSError, ValueError) as error:
            raise EncoderUnavailableError(f"word vectors in {str(folder)!r} cannot be read: {error}") from error
        tokenizer.no_padding()
        tokenizer.no_truncation()
        table = unit_vectors(table)
        return cls(table, PairTokenizer(tokenizer, table))

    def features(self, claim: str, evidence: str) -> Numbers:
        """Return ALIGNMENT of a claim and its window."""
        first, second = self.tokens.pieces(claim, evidence)
        return self.of_ids(np.array(first, dtype=np.int64), np.array(second, dtype=np.int64))

    def of_ids(self, claim: NDArray[np.int64], evidence: NDArray[np.int64]) -> Numbers:
        """Return ALIGNMENT of two rows of pieces."""
        if not len(claim) or not len(evidence):
            return np.zeros(len(ALIGNMENT))
        likeness = self.table[claim] @ self.table[evidence].T
        best = np.clip(likeness.max(axis=1), 0, 1).astype(np.float64)
        weight, other = self._weight[claim], self._weight[evidence]
        lost = np.append(np.sort((1 - best) * weight)[::-1], np.zeros(3))
        phrases = self._phrases(claim, evidence)
        pairs = weight[:-1] + weight[1:] if len(claim) > 1 else weight
        places = likeness.argmax(axis=1)
        values = [
            (weight * best).sum() / weight.sum(), (weight * (best > _EXACT)).sum() / weight.sum(), lost[0], lost[1], lost[2],
            lost[:3].sum(), lost.sum(), (pairs * phrases).sum() / pairs.sum(), np.sort(phrases)[:2].mean(),
            np.log1p(float(places.max() - places.min()) / len(claim)), np.mean(np.diff(places) > 0) if len(claim) > 1 else 1.0,
            (other * np.clip(likeness.max(axis=0), 0, 1)).sum() / other.sum(), len(claim) / len(evidence), float((lost > _LOST).sum()),
        ]  # fmt: skip
        return np.array(values, dtype=np.float64)

    def _phrases(self, claim: NDArray[np.int64], evidence: NDArray[np.int64]) -> Numbers:
        one, two = (self._pairs(ids) for ids in (claim, evidence))
        return np.asarray((one @ two.T).max(axis=1), dtype=np.float64)

    def _pairs(self, ids: NDArray[np.int64]) -> Table:
        vectors = self.table[ids]
        joined = vectors[:-1] + vectors[1:] if len(ids) > 1 else vectors
        return np.asarray(joined / (np.linalg.norm(joined, axis=1, keepdims=True) + 1e-6), dtype=np.float32)
