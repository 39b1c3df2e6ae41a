"""Builds ONNX graphs of BERT layers whose matrices are int8, straight from float weights."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from encoders.graph import IR_VERSION, MICROSOFT, OPSET

_HEADS = 12
_EPSILON = 1e-12
# Seven bits: kernels for AVX2 add pairs of products in 16 bits, which eight would overflow.
_LARGEST = 63.0


class Matrices:
    """Float weights by name, read as int8 with one scale per column where a layer multiplies by them."""

    def __init__(self, weights: Mapping[str, NDArray[Any]]) -> None:
        """Hold weights."""
        self._weights = weights

    def plain(self, name: str) -> NDArray[np.float32]:
        """Return one of the weights; raise KeyError."""
        return np.asarray(self._weights[name], dtype=np.float32)

    def joint(self, *names: str) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        """Return the transposed matrices side by side as int8, and the scale of each column; raise KeyError."""
        matrix = np.concatenate([self.plain(name).T for name in names], axis=1)
        scale = np.maximum(np.abs(matrix).max(axis=0), 1e-8) / _LARGEST
        return np.rint(matrix / scale).astype(np.int8), scale.astype(np.float32)


class _Builder:
    def __init__(self, weights: Matrices) -> None:
        self._weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: NDArray[Any]) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, operator: str, inputs: list[str], outputs: list[str], **attributes: Any) -> str:
        domain = "" if operator == "DynamicQuantizeLinear" else MICROSOFT
        self.nodes.append(helper.make_node(operator, inputs, outputs, domain=domain, **attributes))
        return outputs[0]

    def plain(self, name: str) -> str:
        return self.constant(name, self._weights.plain(name))

    def embed(self) -> str:
        tables = [self.plain(f"embeddings.{kind}_embeddings.weight") for kind in ("word", "position", "token_type")]
        norm = [self.plain(f"embeddings.LayerNorm.{part}") for part in ("weight", "bias")]
        inputs = ["input_ids", "segment_ids", *tables, *norm]
        return self.node("EmbedLayerNormalization", inputs, ["embedded", "embedded_mask"], epsilon=_EPSILON)

    def layer(self, index: int, hidden: str) -> str:
        prefix = f"encoder.layer.{index}."
        attended = self._project(f"{prefix}attention.output.", self._attention(prefix, hidden), hidden)
        wide = self._product(f"{prefix}intermediate.dense", attended)
        active = self.node("BiasGelu", [wide, self.plain(f"{prefix}intermediate.dense.bias")], [f"{prefix}active"])
        return self._project(f"{prefix}output.", active, attended)

    def _attention(self, prefix: str, hidden: str) -> str:
        own = [f"{prefix}attention.self.{part}" for part in ("query", "key", "value")]
        matrix, scale = self._weights.joint(*(f"{name}.weight" for name in own))
        bias = np.concatenate([self._weights.plain(f"{name}.bias") for name in own])
        self.node("DynamicQuantizeLinear", [hidden], quantised := [f"{prefix}q{part}" for part in ("", "_scale", "_zero")])
        inputs = [
            quantised[0], self.constant(f"{prefix}qkv", matrix), self.constant(f"{prefix}qkv_bias", bias), quantised[1],
            self.constant(f"{prefix}qkv_scale", scale), "attention_mask", quantised[2],
            self.constant(f"{prefix}qkv_zero", np.zeros(len(scale), dtype=np.int8)),
        ]  # fmt: skip
        return self.node("QAttention", inputs, [f"{prefix}mixed"], num_heads=_HEADS)

    def _product(self, name: str, hidden: str) -> str:
        matrix, scale = self._weights.joint(f"{name}.weight")
        inputs = [hidden, self.constant(f"{name}.weight", matrix), self.constant(f"{name}.scale", scale)]
        return self.node("DynamicQuantizeMatMul", inputs, [f"{name}.product"])

    def _project(self, prefix: str, hidden: str, residual: str) -> str:
        product = self._product(f"{prefix}dense", hidden)
        norm = [self.plain(f"{prefix}LayerNorm.{part}") for part in ("weight", "bias")]
        inputs = [product, residual, *norm, self.plain(f"{prefix}dense.bias")]
        return self.node("SkipLayerNormalization", inputs, [f"{prefix}out"], epsilon=_EPSILON)

    def model(self, inputs: Mapping[str, tuple[int, list[Any]]], result: str) -> bytes:
        self.nodes.append(helper.make_node("Identity", [result], ["hidden"]))
        given = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()]
        output = helper.make_tensor_value_info("hidden", TensorProto.FLOAT, ["batch", "tokens", "size"])
        graph = helper.make_graph(self.nodes, "layers", given, [output], initializer=self.constants)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION).SerializeToString())


_TOKENS: list[Any] = ["batch", "tokens"]


def lower_model(weights: Matrices, layers: Iterable[int]) -> bytes:
    """Return a serialised model from int32 (batch, tokens) inputs to states (batch, tokens, 384); raise KeyError."""
    builder = _Builder(weights)
    hidden = builder.embed()
    for index in layers:
        hidden = builder.layer(index, hidden)
    names = ("input_ids", "segment_ids", "attention_mask")
    return builder.model(dict.fromkeys(names, (TensorProto.INT32, _TOKENS)), hidden)


def upper_model(weights: Matrices, layers: Iterable[int]) -> bytes:
    """Return a serialised model from float `states` and an int32 `attention_mask` to states (batch, tokens, 384); raise KeyError."""
    builder = _Builder(weights)
    hidden = "states"
    for index in layers:
        hidden = builder.layer(index, hidden)
    return builder.model({"states": (TensorProto.FLOAT, [*_TOKENS, 384]), "attention_mask": (TensorProto.INT32, _TOKENS)}, hidden)
