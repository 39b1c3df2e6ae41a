"""Builds the ONNX graph of a BERT sentence encoder straight from its safetensors weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

MICROSOFT = "com.microsoft"
OPSET = 17
IR_VERSION = 8


@dataclass(frozen=True)
class BertShape:
    """The hyperparameters that the graph needs besides the weights."""

    layers: int
    heads: int
    epsilon: float


class GraphBuilder:
    """Collects nodes and initialisers; fused operators keep the CPU kernels few and large."""

    def __init__(self, weights: Mapping[str, NDArray[np.float32]], shape: BertShape) -> None:
        self._weights = weights
        self.shape = shape
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: NDArray[Any] | np.generic) -> str:
        """Add a tensor and return its name."""
        self.constants.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def weight(self, name: str, *, transpose: bool = False) -> str:
        """Add one of the weights under its own name."""
        value = self._weights[name]
        return self.constant(name, value.T if transpose else value)

    def node(self, operator: str, inputs: list[str], output: str, domain: str = "", **attributes: Any) -> str:
        """Add an operator with one output and return that."""
        self.nodes.append(helper.make_node(operator, inputs, [output], domain=domain, **attributes))
        return output

    def embed(self) -> str:
        """Add words, places and segments, normalised."""
        names = ["word_embeddings.weight", "position_embeddings.weight", "token_type_embeddings.weight"]
        tables = [self.weight(f"embeddings.{name}") for name in names]
        norm = [self.weight(f"embeddings.LayerNorm.{part}") for part in ("weight", "bias")]
        outputs = ["embedded", "embedded_mask_index"]
        self.nodes.append(
            helper.make_node(
                "EmbedLayerNormalization",
                ["input_ids", "segment_ids", *tables, *norm],
                outputs,
                domain=MICROSOFT,
                epsilon=self.shape.epsilon,
            )
        )
        return outputs[0]

    def layer(self, index: int, hidden: str) -> str:
        """Add one layer: attention and the wide projection, each with its residual."""
        prefix = f"encoder.layer.{index}."
        own = f"{prefix}attention.self."
        kernels = [self._weights[f"{own}{part}.weight"].T for part in ("query", "key", "value")]
        biases = [self._weights[f"{own}{part}.bias"] for part in ("query", "key", "value")]
        joint = self.constant(f"{own}weight", np.concatenate(kernels, axis=1))
        bias = self.constant(f"{own}bias", np.concatenate(biases))
        heads = {"num_heads": self.shape.heads}
        mixed = self.node("Attention", [hidden, joint, bias, "attention_mask"], f"{prefix}mixed", MICROSOFT, **heads)
        attended = self._project(f"{prefix}attention.output.", mixed, residual=hidden)
        kernel = self.weight(f"{prefix}intermediate.dense.weight", transpose=True)
        wide = self.node("MatMul", [attended, kernel], f"{prefix}wide")
        bias = self.weight(f"{prefix}intermediate.dense.bias")
        active = self.node("BiasGelu", [wide, bias], f"{prefix}active", MICROSOFT)
        return self._project(f"{prefix}output.", active, residual=attended)

    def _project(self, prefix: str, hidden: str, *, residual: str) -> str:
        kernel = self.weight(f"{prefix}dense.weight", transpose=True)
        product = self.node("MatMul", [hidden, kernel], f"{prefix}product")
        norm = [self.weight(f"{prefix}LayerNorm.{part}") for part in ("weight", "bias")]
        inputs = [product, residual, *norm, self.weight(f"{prefix}dense.bias")]
        epsilon = self.shape.epsilon
        return self.node("SkipLayerNormalization", inputs, f"{prefix}out", MICROSOFT, epsilon=epsilon)

    def pool(self, hidden: str) -> str:
        """Add the mean of all tokens, scaled to length one."""
        mask = self.node("Cast", ["attention_mask"], "mask", to=TensorProto.FLOAT)
        column = self.node("Unsqueeze", [mask, self.constant("axis", np.array([2]))], "mask_column")
        kept = self.node("Mul", [hidden, column], "kept")
        total = self.node("ReduceSum", [kept, self.constant("tokens", np.array([1]))], "total", keepdims=0)
        # The mean needs no division: normalising to length one removes every scale.
        return self.node("LpNormalization", [total], "embedding", axis=1, p=2)

    def model(self) -> onnx.ModelProto:
        """Return the whole graph."""
        hidden = self.embed()
        for index in range(self.shape.layers):
            hidden = self.layer(index, hidden)
        self.pool(hidden)
        names = ("input_ids", "segment_ids", "attention_mask")
        inputs = [helper.make_tensor_value_info(n, TensorProto.INT32, ["batch", "tokens"]) for n in names]
        outputs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", "size"])]
        graph = helper.make_graph(self.nodes, "encoder", inputs, outputs, initializer=self.constants)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def build_model(weights: Mapping[str, NDArray[np.float32]], shape: BertShape) -> bytes:
    """Return a serialised ONNX model: int32 (batch, tokens) inputs to unit vectors (batch, size)."""
    return GraphBuilder(weights, shape).model().SerializeToString()
