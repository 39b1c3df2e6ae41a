"""The small cross-encoder that says whether evidence entails a claim."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from safetensors.numpy import load

from encoders.encoder import default_directory
from encoders.graph import BertShape
from encoders.pair_graph import build_pair_model
from encoders.pair_tokens import PairTokenizer

WEIGHTS_FILE = "entailment.npz"
_WORDS = "embeddings.word_embeddings.weight"


class EntailmentFileError(ValueError):
    """Raised when the weights cannot be used; the text names the file."""


class EntailmentModel:
    """Reads pairs of claim and evidence; safe to call from several threads."""

    def __init__(self, session: onnxruntime.InferenceSession, tokens: PairTokenizer) -> None:
        """Wrap a ready session; use `load` instead."""
        self._session = session
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
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            layers = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("encoder.layer."))
            shape = BertShape(layers=layers, heads=config["num_attention_heads"], epsilon=config["layer_norm_eps"])
            model = build_pair_model(weights, shape)
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise EntailmentFileError(f"{str(path)!r} cannot be used: {error}") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return cls(onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]), tokens)

    def logits(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """Return the logit of entailment of each (claim, evidence), in one run."""
        if not pairs:
            return np.zeros(0, dtype=np.float32)
        batch = self._tokens.batch(pairs)
        feed = {"input_ids": batch.ids, "segment_ids": batch.kinds, "attention_mask": batch.mask, "claim_mask": batch.claim_mask}
        (found,) = self._session.run(["logit"], feed)
        return np.asarray(found, dtype=np.float32)[:, 0]
