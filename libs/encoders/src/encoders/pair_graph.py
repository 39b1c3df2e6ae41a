"""Builds the ONNX graph of the entailment model: the encoder's first layers over a pair, and one logit."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from encoders.graph import IR_VERSION, MICROSOFT, OPSET, BertShape, GraphBuilder

_BLOCKED = 1e4


class _PairGraph(GraphBuilder):
    """The layers of a cross-encoder with its head."""

    def score(self, hidden: str) -> str:
        """Add the head: the first token, the mean of all, and the strongest of the claim's tokens, weighed together."""
        first = self.node("Gather", [hidden, self.constant("first_place", np.array(0))], "first", axis=1)
        wide = self._wide("attention_mask")
        total = self.node(
            "ReduceSum", [self.node("Mul", [hidden, wide], "kept"), self.constant("tokens", np.array([1]))], "total", keepdims=0
        )
        count = self.node("ReduceSum", [wide, "tokens"], "count", keepdims=0)
        mean = self.node("Div", [total, count], "mean")
        one, blocked = self.constant("one", np.float32(1)), self.constant("blocked", np.float32(_BLOCKED))
        outside = self.node("Mul", [self.node("Sub", [self._wide("claim_mask"), one], "outside"), blocked], "penalty")
        strongest = self.node("ReduceMax", [self.node("Add", [hidden, outside], "claim_only")], "strongest", axes=[1], keepdims=0)
        joined = self.node("Concat", [first, mean, strongest], "joined", axis=1)
        product = self.node("MatMul", [joined, self.weight("head.weight", transpose=True)], "product")
        return self.node("Add", [product, self.weight("head.bias")], "logit")

    def _wide(self, name: str) -> str:
        mask = self.node("Cast", [name], f"{name}_float", to=TensorProto.FLOAT)
        return self.node("Unsqueeze", [mask, self.constant(f"{name}_axis", np.array([2]))], f"{name}_wide")

    def model(self) -> onnx.ModelProto:
        """Return the whole graph: int32 (pairs, tokens) inputs to logits (pairs, 1)."""
        hidden = self.embed()
        for index in range(self.shape.layers):
            hidden = self.layer(index, hidden)
        self.score(hidden)
        names = ("input_ids", "segment_ids", "attention_mask", "claim_mask")
        inputs = [helper.make_tensor_value_info(n, TensorProto.INT32, ["pairs", "tokens"]) for n in names]
        outputs = [helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["pairs", 1])]
        graph = helper.make_graph(self.nodes, "entailment", inputs, outputs, initializer=self.constants)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def build_pair_model(weights: Mapping[str, NDArray[Any]], shape: BertShape) -> bytes:
    """Return a serialised ONNX model of a claim and its evidence."""
    return _PairGraph(weights, shape).model().SerializeToString()
