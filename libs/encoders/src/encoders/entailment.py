"""The small cross-encoder, its matrices int8, that says whether evidence entails a claim."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from safetensors.numpy import load

from encoders.encoder import default_directory
from encoders.int8_graph import Matrices, lower_model
from encoders.pair_tokens import PairBatch, PairTokenizer

WEIGHTS_FILE = "entailment.npz"
_BLOCKED = np.float32(1e4)
Floats = NDArray[np.float32]
_WORDS = "embeddings.word_embeddings.weight"


class EntailmentFileError(ValueError):
    """Raised when the weights cannot be used; the text names the file."""


@dataclass(frozen=True)
class Head:
    """What turns states into a logit: the first token, the mean of all, and the strongest of the claim's tokens, weighed together."""

    weight: Floats
    bias: float

    def logits(self, states: Floats, batch: PairBatch) -> Floats:
        """Return the logit of each pair from states (pairs, tokens, size)."""
        wide = batch.mask[:, :, None].astype(np.float32)
        mean = (states * wide).sum(axis=1) / wide.sum(axis=1)
        strongest = np.where(batch.claim_mask[:, :, None] > 0, states, -_BLOCKED).max(axis=1)
        joined = np.concatenate([states[:, 0], mean, strongest], axis=1)
        return np.asarray(joined @ self.weight + self.bias, dtype=np.float32)


class EntailmentModel:
    """Reads pairs of claim and evidence; safe to call from several threads."""

    def __init__(self, session: onnxruntime.InferenceSession, head: Head, tokens: PairTokenizer) -> None:
        """Wrap a ready session; use `load` instead."""
        self._session = session
        self._head = head
        self._tokens = tokens

    @classmethod
    def load(cls, directory: Path, tokens: PairTokenizer, encoder_directory: Path | None = None, *, threads: int = 1) -> Self:
        """Read `entailment.npz` of a folder, and the words of the encoder; raise EntailmentFileError."""
        folder = default_directory() if encoder_directory is None else encoder_directory
        path = directory / WEIGHTS_FILE
        try:
            with np.load(path) as stored:
                weights = {name: stored[name].astype(np.float32) for name in stored.files}
            weights[_WORDS] = load((folder / "model.safetensors").read_bytes())[_WORDS]
            layers = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("encoder.layer."))
            model = lower_model(Matrices(weights), range(layers))
            head = Head(weights["head.weight"][0], float(weights["head.bias"][0]))
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise EntailmentFileError(f"{str(path)!r} cannot be used: {error}") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return cls(onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]), head, tokens)

    def logits(self, pairs: Sequence[tuple[str, str]]) -> Floats:
        """Return the logit of entailment of each (claim, evidence); each alone, for int8 states depend on what else is in a run."""
        return np.array([self._logit(pair) for pair in pairs], dtype=np.float32)

    def _logit(self, pair: tuple[str, str]) -> float:
        batch = self._tokens.batch([pair])
        feed = {"input_ids": batch.ids, "segment_ids": batch.kinds, "attention_mask": batch.mask}
        (states,) = self._session.run(["hidden"], feed)
        return float(self._head.logits(np.asarray(states, dtype=np.float32), batch)[0])
