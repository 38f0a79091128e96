"""Read and write layers with constant weights (Conv, Gemm and MatMul) as matrices."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onnx_release.graph.graph import node_inputs


@dataclass(frozen=True)
class Layer:
    """A node with a constant float32 weight. `bias` is the name of its constant bias, or empty."""

    node: NodeProto
    weight: str
    bias: str

    @property
    def name(self) -> str:
        return str(self.node.name)

    @property
    def groups(self) -> int:
        return int(attributes(self.node).get("group", 1))


def attributes(node: NodeProto) -> dict[str, Any]:
    """Return the attributes of a node by name."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def initializers(model: ModelProto) -> dict[str, TensorProto]:
    """Return the initializers of the graph by name."""
    return {tensor.name: tensor for tensor in model.graph.initializer}


def set_array(tensor: TensorProto, array: np.ndarray) -> None:
    """Give an initializer another value and keep its name."""
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(array, order="C"), tensor.name))


def weighted_layers(model: ModelProto) -> list[Layer]:
    """Return the layers in the order of the graph, without those that share their weight with another node."""
    constants = initializers(model)
    uses = Counter(name for node in model.graph.node for name in node_inputs(node))
    uses.update(value.name for value in model.graph.output)
    layers = []
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul") or node.domain not in ("", "ai.onnx"):
            continue
        weight, bias = node.input[1], node.input[2] if len(node.input) > 2 else ""
        known = weight in constants and constants[weight].data_type == TensorProto.FLOAT and uses[weight] == 1
        if known and is_plain(node) and has_matrix(node, tuple(constants[weight].dims)):
            own = bias in constants and uses[bias] == 1
            layers.append(Layer(node, weight, bias if own else ""))
    return layers


def has_matrix(node: NodeProto, weight: tuple[int, ...]) -> bool:
    """Return whether `as_matrix` takes a weight of this shape: it has values, and that of a product has 2 axes."""
    return 0 not in weight and (node.op_type == "Conv" or len(weight) == 2)


def clip_bounds(node: NodeProto, tensors: Mapping[str, TensorProto]) -> tuple[float, float] | None:
    """Return the bounds of a Clip, infinite where it has none; None if a bound is computed."""
    bounds = {1: -np.inf, 2: np.inf}
    for position, name in enumerate(node.input[1:], start=1):
        if name and name not in tensors:
            return None
        if name:
            bounds[position] = float(numpy_helper.to_array(tensors[name]))
    return bounds[1], bounds[2]


def kernel_shape(layer: Layer, tensors: Mapping[str, TensorProto]) -> tuple[int, ...]:
    """Return the spatial shape of a Conv's weight; empty for Gemm and MatMul."""
    return tuple(tensors[layer.weight].dims)[2:]


def is_plain(node: NodeProto) -> bool:
    """Return whether the output is weight times patches plus bias, with explicit padding."""
    found = attributes(node)
    if node.op_type == "Conv":
        return found.get("auto_pad", b"NOTSET") == b"NOTSET"
    return not found.get("transA", 0) and found.get("alpha", 1.0) == 1.0 and found.get("beta", 1.0) == 1.0


def as_matrix(layer: Layer, weight: np.ndarray) -> np.ndarray:
    """Return the weight as [groups, outputs, inputs], counted in each group; a Conv's inputs are channels by kernel."""
    if layer.node.op_type == "Conv":
        return weight.reshape(layer.groups, weight.shape[0] // layer.groups, -1)
    transposed = layer.node.op_type == "MatMul" or not attributes(layer.node).get("transB", 0)
    return (weight.T if transposed else weight)[np.newaxis]


def from_matrix(layer: Layer, matrix: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Undo `as_matrix` for a weight of `shape`."""
    if layer.node.op_type == "Conv":
        return matrix.reshape(shape)
    transposed = layer.node.op_type == "MatMul" or not attributes(layer.node).get("transB", 0)
    return matrix[0].T if transposed else matrix[0]


def patches(layer: Layer, data: np.ndarray, limit: int, seed: int, kernel: tuple[int, ...]) -> np.ndarray:
    """Return the values that each output of the layer multiplies with its weight: [groups, inputs, positions].

    `data` is the layer's input with its batch axis, `kernel` the spatial shape of the weight, empty for Gemm and
    MatMul. Of more than `limit` positions, `limit` are drawn with `seed`.
    """
    if layer.node.op_type != "Conv":
        rows = data.reshape(-1, data.shape[-1])
        return rows[draw_positions(len(rows), limit, seed)].T[np.newaxis]
    found = attributes(layer.node)
    rank = len(kernel)
    strides, dilations = found.get("strides", [1] * rank), found.get("dilations", [1] * rank)
    pads = found.get("pads", [0] * (2 * rank))
    padded = data
    if any(pads):
        padded = np.pad(data, [(0, 0), (0, 0), *((pads[i], pads[i + rank]) for i in range(rank))])
    reach = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=tuple(range(2, 2 + rank)))
    every = tuple(slice(None, None, stride) for stride in strides)
    windows = windows[(slice(None), slice(None), *every, *(slice(None, None, step) for step in dilations))]
    batch, spatial = len(windows), windows.shape[2 : 2 + rank]
    first, *others = np.unravel_index(draw_positions(batch * int(np.prod(spatial)), limit, seed), (batch, *spatial))
    position: tuple[Any, ...] = (first, slice(None), *others)
    taken = windows[position]  # [positions, channels, *kernel]
    return taken.reshape(len(taken), layer.groups, -1).transpose(1, 2, 0)


def draw_positions(count: int, limit: int, seed: int) -> np.ndarray:
    """Draw at most `limit` of the numbers below `count`, in order."""
    if count <= limit:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, limit, replace=False))
