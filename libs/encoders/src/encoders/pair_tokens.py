"""Turns a claim and its evidence into the one sequence that the entailment model reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

MAX_TOKENS = 112
MAX_CLAIM_TOKENS = 40
# Four kinds of token: of claim or evidence, and whether the other side has the same piece.
KINDS = 4
_CLAIM, _EVIDENCE, _SHARED = 0, 2, 1
_CLS, _SEP = 101, 102
Ints = NDArray[np.int32]


@dataclass(frozen=True)
class PairBatch:
    """Ids, kinds and masks (pairs, tokens); `claim_mask` marks the claim's own tokens."""

    ids: Ints
    kinds: Ints
    mask: Ints
    claim_mask: Ints


class PairTokenizer:
    """Cuts pairs to MAX_TOKENS; marks which pieces both sides share, so that a small model need not find out."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Use a tokenizer that neither pads nor truncates."""
        self._tokenizer = tokenizer

    def row(self, claim: str, evidence: str) -> tuple[list[int], list[int], int]:
        """Return ids, kinds and the number of claim tokens of one pair."""
        encoded: list[Any] = self._tokenizer.encode_batch([claim, evidence], add_special_tokens=False)
        first = encoded[0].ids[:MAX_CLAIM_TOKENS]
        second = encoded[1].ids[: MAX_TOKENS - 3 - len(first)]
        in_first, in_second = set(first), set(second)
        ids = [_CLS, *first, _SEP, *second, _SEP]
        kinds = [_CLAIM, *(_CLAIM + _SHARED * (token in in_second) for token in first), _CLAIM]
        kinds += [*(_EVIDENCE + _SHARED * (token in in_first) for token in second), _EVIDENCE]
        return ids, kinds, len(first)

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
