"""Bring the channels of a value closer in size, without changing the network's answers.

A value that goes from weights to weights through nothing but Add is linear: its channels can be scaled in the layers
that make it and scaled back in those that use it. One 8-bit scale for the whole tensor then suits its small channels
too. After a ReLU or a ReLU6 only small channels are scaled, and only up: the bound at 6 then clips a channel earlier,
but not below HEADROOM times its largest value in any sample.
Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, 2019, arXiv 1906.04721.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper
from tqdm import tqdm

from onnx_release.core.errors import GraphError
from onnx_release.core.workers import map_in_order
from onnx_release.data.samples import SampleFile
from onnx_release.graph.activations import constant_values, extract_subgraph, session_of
from onnx_release.graph.layers import (
    Layer,
    as_matrix,
    clip_bounds,
    from_matrix,
    initializers,
    set_array,
    weighted_layers,
)
from onnx_release.measure.numerics import OutputError
from onnx_release.runtime.session import run_session

# Half of the difference goes to the weights that use the value, which have 8 bits as well. A quarter of it and all of
# it are no better (benchmarks/ablation.json).
STRENGTH = 0.5
LARGEST_SCALE = 100.0
# How much larger than in these samples a channel with a bound may be in others.
HEADROOM = 2.0
# Different rounding of the same sums is far above this.
LEAST_SQNR_DB = 60.0


@dataclass(frozen=True)
class Group:
    """Values that share the scales of their channels, with the layers that make them and those that use them.

    `bound` is the value at which they are clipped, infinite for a ReLU, and None for linear ones.
    """

    values: list[str]
    makers: list[Layer]
    takers: list[Layer]
    bound: float | None = None


def equalize_on(model: ModelProto, samples: SampleFile, chunk: int) -> tuple[ModelProto, int]:
    """Return an equalized copy of `model`, by the channel sizes in `samples`, and how many values were scaled.

    Raises GraphError if its answers differ, which would be a bug.
    """
    values = [name for group in groups(model) for name in group.values]
    if not values:
        return model, 0
    outputs = [value.name for value in model.graph.output]
    session = session_of(extract_subgraph(model, [*values, *outputs]))

    def run(index: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        found = run_session(session, samples.batch(index))
        sizes = {name: np.abs(found[name][0]).reshape(found[name].shape[1], -1).max(axis=1) for name in values}
        return sizes, {name: found[name] for name in outputs}

    sizes: dict[str, np.ndarray] = {}
    for found, _ in tqdm(map_in_order(run, range(len(samples)), chunk), "channels", len(samples), unit="sample"):
        sizes = {name: np.maximum(array, sizes.get(name, 0.0)) for name, array in found.items()}
    scaled, count = equalize(model, sizes)
    error, again = OutputError(), session_of(scaled)
    for index in range(min(len(samples), chunk)):
        answers = run_session(again, samples.batch(index))
        for name, wanted in run(index)[1].items():
            error.add(wanted, answers[name])
    if not error.sqnr_db >= LEAST_SQNR_DB:
        raise GraphError(
            f"equalizing changed the answers: {error.sqnr_db:.3g} dB SQNR. This is a bug; please report it"
        )
    return scaled, count


def equalize(model: ModelProto, channel_sizes: dict[str, np.ndarray]) -> tuple[ModelProto, int]:
    """Return a scaled copy of `model`, and how many values were scaled.

    `channel_sizes` has the largest magnitude of each channel, float [channels], of the values in `groups`.
    """
    scaled = ModelProto()
    scaled.CopyFrom(model)
    tensors = initializers(scaled)
    count = 0
    for group in groups(scaled):
        found = [channel_sizes[name] for name in group.values]
        if len({len(sizes) for sizes in found}) > 1:
            continue  # an Add that broadcasts
        sizes = np.max(found, axis=0)
        scale = linear_scale(sizes) if group.bound is None else bounded_scale(sizes, group.bound)
        if (scale == 1).all():
            continue
        for layer in group.makers:
            scale_outputs(layer, tensors, scale)
        for layer in group.takers:
            scale_inputs(layer, tensors, 1 / scale)
        count += len(group.values)
    return scaled, count


def linear_scale(sizes: np.ndarray) -> np.ndarray:
    """Return scales that bring each channel half of the way to the geometric mean; 1 if a channel is always 0."""
    if not (sizes > 0).all():
        return np.ones_like(sizes)
    middle = np.exp(np.log(sizes).mean())
    return np.clip((middle / sizes) ** STRENGTH, 1 / LARGEST_SCALE, LARGEST_SCALE)


def bounded_scale(sizes: np.ndarray, bound: float) -> np.ndarray:
    """Return scales, 1 or more, that bring each channel half of the way to 1 / HEADROOM of the largest one's size."""
    reach = min(bound, float(sizes.max()))
    wanted = np.divide(reach, HEADROOM * sizes, out=np.ones_like(sizes), where=sizes > 0)
    return np.clip(wanted, 1.0, LARGEST_SCALE**2) ** STRENGTH


def scale_outputs(layer: Layer, tensors: Mapping[str, TensorProto], scale: np.ndarray) -> None:
    """Multiply the output channels of a layer, with its bias, in place."""
    weight = numpy_helper.to_array(tensors[layer.weight])
    matrix = as_matrix(layer, weight)
    matrix = matrix * scale.reshape(*matrix.shape[:2], 1)
    set_array(tensors[layer.weight], from_matrix(layer, matrix, weight.shape).astype(np.float32))
    if layer.bias:
        set_array(tensors[layer.bias], (numpy_helper.to_array(tensors[layer.bias]) * scale).astype(np.float32))


def scale_inputs(layer: Layer, tensors: Mapping[str, TensorProto], scale: np.ndarray) -> None:
    """Multiply the input channels of a layer, in place."""
    weight = numpy_helper.to_array(tensors[layer.weight])
    matrix = as_matrix(layer, weight)
    each = matrix.shape[2] // (len(scale) // layer.groups)  # kernel positions
    matrix = matrix * np.repeat(scale, each).reshape(layer.groups, 1, -1)
    set_array(tensors[layer.weight], from_matrix(layer, matrix, weight.shape).astype(np.float32))


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
        for name in node.input:
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
        taken = [name for name in node.input if name and name not in constants]
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
