"""Turns a claim and its evidence into the one sequence that the entailment model reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

MAX_TOKENS = 112
MAX_CLAIM_TOKENS = 40
# Kinds of token, of the claim and again of the evidence: the other side has nothing like it, something like it, the same piece, or
# the same piece beside the same neighbour.
KINDS = 8
_EVIDENCE = 4
_CLS, _SEP = 101, 102
_ALIKE = 0.4
Ints = NDArray[np.int32]
Table = NDArray[np.float32]


def unit_vectors(table: Table) -> Table:
    """Return word vectors (pieces, size) without what all have in common, each of length one."""
    centred = table - table.mean(axis=0)
    return np.asarray(centred / (np.linalg.norm(centred, axis=1, keepdims=True) + 1e-6), dtype=np.float32)


@dataclass(frozen=True)
class PairBatch:
    """Ids, kinds and masks (pairs, tokens); `claim_mask` marks the claim's own tokens."""

    ids: Ints
    kinds: Ints
    mask: Ints
    claim_mask: Ints


class PairTokenizer:
    """Cuts pairs to MAX_TOKENS; marks what both sides share, so that a small model need not find out."""

    def __init__(self, tokenizer: Tokenizer, table: Table) -> None:
        """Use a tokenizer that neither pads nor truncates, and the unit vectors of its pieces."""
        self._tokenizer = tokenizer
        self._table = table

    def pieces(self, claim: str, evidence: str) -> tuple[list[int], list[int]]:
        """Return the ids of the claim and of the evidence, cut to what the model reads."""
        encoded: list[Any] = self._tokenizer.encode_batch([claim, evidence], add_special_tokens=False)
        first = encoded[0].ids[:MAX_CLAIM_TOKENS]
        return first, encoded[1].ids[: MAX_TOKENS - 3 - len(first)]

    def row(self, claim: str, evidence: str) -> tuple[list[int], list[int], int]:
        """Return ids, kinds and the number of claim tokens of one pair."""
        first, second = self.pieces(claim, evidence)
        own, other = self._kinds(np.array(first, dtype=np.int64), np.array(second, dtype=np.int64))
        kinds = [0, *own, 0, *(_EVIDENCE + kind for kind in other), _EVIDENCE]
        return [_CLS, *first, _SEP, *second, _SEP], kinds, len(first)

    def _kinds(self, first: NDArray[np.int64], second: NDArray[np.int64]) -> tuple[list[int], list[int]]:
        if not len(first) or not len(second):
            return [0] * len(first), [0] * len(second)
        alike = self._table[first] @ self._table[second].T > _ALIKE
        same = first[:, None] == second[None, :]
        phrase = np.zeros_like(same)
        phrase[1:, 1:] |= same[:-1, :-1]
        phrase[:-1, :-1] |= same[1:, 1:]
        level = np.where(same & phrase, 3, np.where(same, 2, alike))
        return level.max(axis=1).tolist(), level.max(axis=0).tolist()

    def batch(self, pairs: Sequence[tuple[str, str]]) -> PairBatch:
        """Return pairs as padded arrays."""
        return collate([self.row(*pair) for pair in pairs])


def collate(rows: Sequence[tuple[list[int], list[int], int]]) -> PairBatch:
    """Return rows as padded arrays."""
    longest = max(len(row[0]) for row in rows)
    ids, kinds, mask, claim = (np.zeros((len(rows), longest), dtype=np.int32) for _ in range(4))
    for place, (tokens, types, length) in enumerate(rows):
        ids[place, : len(tokens)] = tokens
        kinds[place, : len(tokens)] = types
        mask[place, : len(tokens)] = 1
        claim[place, 1 : 1 + length] = 1
    return PairBatch(ids, kinds, mask, claim)
