"""Replace MatMul and Gemm by products of integers whose activations are quantized when the model runs.

The nodes are those that ONNX Runtime fuses to DynamicQuantizeMatMul. Its own quantizer fails for some weights: of 3
axes with a scale for each channel (microsoft/onnxruntime#25489), or transposed and shared with another node. Here every
weight has symmetric int8 values, one scale for each output channel of each matrix, and no zero point. The transposed
embedding of a language model is no initializer and stays in float: an integer copy of it would come on top.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onnx_release.graph.graph import tensor_array
from onnx_release.graph.layers import attributes, initializers
from onnx_release.graph.names import FreshNames, all_names

PRODUCTS = ("MatMul", "Gemm")
LARGEST_INTEGER = 127
# A CPU without VNNI adds two products in 16 bits; with these weights they fit.
LARGEST_REDUCED_INTEGER = 64


@dataclass(frozen=True)
class Weight:
    """The names of a quantized weight and of its scales."""

    integers: str
    scales: str


def quantize_products(
    model: ModelProto, operators: Collection[str], exclude: Collection[str], reduce_range: bool, folder: Path | None
) -> list[str]:
    """Replace the products of `operators` with a constant float32 weight, in place, and return their names.

    The nodes named in `exclude` stay as they are. Weights may be in files of `folder`.
    """
    rewriter = Rewriter(model, LARGEST_REDUCED_INTEGER if reduce_range else LARGEST_INTEGER, folder)
    nodes: list[NodeProto] = []
    done = []
    for node in model.graph.node:
        wanted = node.op_type in operators and node.op_type in PRODUCTS and node.name not in exclude
        if wanted and node.domain in ("", "ai.onnx") and rewriter.can_quantize(node):
            nodes.extend(rewriter.product(node))
            done.append(node.name)
        else:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(rewriter.made)
    return done


class Rewriter:
    """Makes the nodes and weights of a graph; each activation is quantized once, and so is each weight."""

    def __init__(self, model: ModelProto, largest: int, folder: Path | None) -> None:
        self.largest, self.folder = largest, folder
        self.tensors = initializers(model)
        # The value of an initializer that is also an input may be another one at each run.
        for value in model.graph.input:
            self.tensors.pop(value.name, None)
        self.names = FreshNames(all_names(model))
        self.activations: dict[str, list[str]] = {}
        self.weights: dict[tuple[str, bool, float], Weight] = {}
        self.made: list[TensorProto] = []

    def can_quantize(self, node: NodeProto) -> bool:
        """Return whether the second operand is a constant matrix, or several, of finite float32 values."""
        tensor = self.tensors.get(node.input[1])
        if tensor is None or tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2 or 0 in tensor.dims:
            return False
        return bool(np.isfinite(tensor_array(tensor, self.folder)).all())

    def product(self, node: NodeProto) -> Iterator[NodeProto]:
        """Yield the nodes that replace a MatMul or a Gemm; the last one has its output."""
        found = attributes(node) if node.op_type == "Gemm" else {}
        data = node.input[0]
        if found.get("transA", 0):
            data = self.names.give(f"{data}_transposed")
            yield helper.make_node("Transpose", [node.input[0]], [data], f"{node.name}_transpose", perm=[1, 0])
        weight = self.weight(node.input[1], bool(found.get("transB", 0)), float(found.get("alpha", 1.0)))
        if data not in self.activations:
            parts = [self.names.give(f"{data}_{part}") for part in ("quantized", "scale", "zero_point")]
            self.activations[data] = parts
            yield helper.make_node("DynamicQuantizeLinear", [data], parts, f"{data}_QuantizeLinear")
        quantized, scale, zero_point = self.activations[data]
        beta, output = float(found.get("beta", 1.0)), node.output[0]
        bias = node.input[2] if len(node.input) > 2 and node.input[2] and beta else ""
        sums, floats, scales = (self.names.give(f"{output}_{part}") for part in ("sums", "floats", "scales"))
        scaled = self.names.give(f"{output}_without_bias") if bias else output
        inputs = [quantized, weight.integers, zero_point]
        yield helper.make_node("MatMulInteger", inputs, [sums], f"{node.name}_quant")
        yield helper.make_node("Cast", [sums], [floats], f"{node.name}_cast", to=TensorProto.FLOAT)
        yield helper.make_node("Mul", [scale, weight.scales], [scales], f"{node.name}_scales_mul")
        yield helper.make_node("Mul", [floats, scales], [scaled], f"{node.name}_output_scale_mul")
        if bias and beta != 1:
            factor, bias = (
                self.constant(f"{output}_beta", np.array(beta, np.float32)),
                self.names.give(f"{output}_bias"),
            )
            yield helper.make_node("Mul", [node.input[2], factor], [bias], f"{node.name}_beta_mul")
        if bias:
            yield helper.make_node("Add", [scaled, bias], [output], f"{node.name}_bias_add")

    def weight(self, name: str, transposed: bool, alpha: float) -> Weight:
        """Quantize a weight [..., inputs, outputs], times `alpha`, which is kept in its scales."""
        key = name, transposed, alpha
        if key not in self.weights:
            matrix = tensor_array(self.tensors[name], self.folder)
            integers, scales = quantize_matrix(matrix.swapaxes(-1, -2) if transposed else matrix, self.largest)
            self.weights[key] = Weight(
                self.constant(f"{name}_quantized", np.ascontiguousarray(integers)),
                self.constant(f"{name}_scale", (scales * np.float32(alpha)).astype(np.float32)),
            )
        return self.weights[key]

    def constant(self, name: str, array: np.ndarray) -> str:
        """Make an initializer, and return its name."""
        self.made.append(numpy_helper.from_array(array, self.names.give(name)))
        return self.made[-1].name


def quantize_matrix(matrix: np.ndarray, largest: int) -> tuple[np.ndarray, np.ndarray]:
    """Return int8 [..., inputs, outputs] and float32 scales, [outputs] or [..., 1, outputs], of a float32 weight.

    The scale of a channel of zeros is 1. A scale is never subnormal, since a CPU may take such a number for 0.
    """
    sizes = np.maximum(matrix.max(axis=-2, keepdims=True), -matrix.min(axis=-2, keepdims=True))
    scales = sizes / np.float32(largest)
    scales = np.where(scales < np.finfo(np.float32).tiny, np.float32(1), scales)
    integers = np.rint(matrix / scales).astype(np.int8)
    return integers, scales[0] if matrix.ndim == 2 else scales
