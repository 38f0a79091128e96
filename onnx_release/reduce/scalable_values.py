"""Find the values of a graph whose channels can be scaled: those between layers with weights.

Linear ones go from weights to weights through nothing but Add; others are behind a Relu, or a Clip from 0, between
convolutions.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from onnx_release.graph.activations import constant_values
from onnx_release.graph.graph import node_inputs
from onnx_release.graph.layers import Layer, clip_bounds, initializers, weighted_layers


@dataclass(frozen=True)
class Group:
    """Values that share the scales of their channels, with the layers that make them and those that use them.

    `bound` is the value at which they are clipped, infinite for a ReLU, and None for linear ones.
    """

    values: list[str]
    makers: list[Layer]
    takers: list[Layer]
    bound: float | None = None


def groups(model: ModelProto) -> list[Group]:
    """Find all values whose channels can be scaled."""
    return [*linear_groups(model), *bounded_groups(model)]


def bounded_groups(model: ModelProto) -> list[Group]:
    """Find the outputs of a Relu, or a Clip from 0, after one convolution that go only into convolutions."""
    tensors = initializers(model)
    layers = {layer.name: layer for layer in weighted_layers(model) if layer.node.op_type == "Conv"}
    makers = {layer.node.output[0]: layer for layer in layers.values()}
    takers: dict[str, list[NodeProto]] = {value.name: [NodeProto()] for value in model.graph.output}
    for node in model.graph.node:
        for name in node_inputs(node):
            takers.setdefault(name, []).append(node)
    found = []
    for node in model.graph.node:
        bound = upper_bound(node, tensors)
        if bound is None or node.input[0] not in makers or len(takers[node.input[0]]) > 1:
            continue
        maker, after = makers[node.input[0]], takers.get(node.output[0], [])
        free = all(taker.name in layers and taker.input[0] == node.output[0] for taker in after)
        if free and not has_free_bias(maker, maker.node.input):
            found.append(Group([node.output[0]], [maker], [layers[taker.name] for taker in after], bound))
    return found


def upper_bound(node: NodeProto, tensors: Mapping[str, TensorProto]) -> float | None:
    """Return the upper bound of a Relu or of a Clip from 0, infinite for a Relu; None for any other node."""
    if node.op_type == "Relu":
        return np.inf
    bounds = clip_bounds(node, tensors) if node.op_type == "Clip" else None
    return bounds[1] if bounds is not None and bounds[0] == 0 < bounds[1] else None


def linear_groups(model: ModelProto) -> list[Group]:
    """Find the values that go from weights to weights through nothing but Add."""
    constants = constant_values(model)
    layers = {layer.name: layer for layer in weighted_layers(model)}
    joined: dict[str, str] = {}

    def root(name: str) -> str:
        while joined.setdefault(name, name) != name:
            name = joined[name]
        return name

    closed = {value.name for value in (*model.graph.input, *model.graph.output)}
    makers: dict[str, Layer] = {}
    takers: list[tuple[str, Layer]] = []
    for node in model.graph.node:
        taken = [name for name in node_inputs(node) if name not in constants]
        if node.op_type == "MatMul" or (node.name in layers and has_free_bias(layers[node.name], node.input)):
            closed |= {*taken, *node.output}  # a MatMul's channels are its last axis, unlike those of others
        elif node.name in layers:
            makers[node.output[0]] = layers[node.name]
            takers.append((node.input[0], layers[node.name]))
        elif node.op_type == "Add" and len(taken) == 2:
            for name in taken:
                joined[root(name)] = root(node.output[0])
        else:
            closed |= {*taken, *node.output}
    together: dict[str, list[str]] = {}
    for name in dict.fromkeys([*joined, *makers, *(name for name, _ in takers)]):
        together.setdefault(root(name), []).append(name)
    shut = {root(name) for name in closed if name in joined or name in makers}
    return [
        Group(
            sorted(values),
            [makers[name] for name in values if name in makers],
            [layer for name, layer in takers if name in values],
        )
        for key, values in together.items()
        if key not in shut and any(name in makers for name in values)
    ]


def has_free_bias(layer: Layer, inputs: Iterable[str]) -> bool:
    """Return whether the bias is computed or shared, and so cannot be scaled with the weight."""
    return len([name for name in inputs if name]) > 2 and not layer.bias
