"""Bring the channels of a value closer in size, without changing the network's answers.

A value that goes from weights to weights through nothing but Add is linear: its channels can be scaled in the layers
that make it and scaled back in those that use it. One 8-bit scale for the whole tensor then suits its small channels
too. After a ReLU or a ReLU6 only small channels are scaled, and only up: the bound at 6 then clips a channel earlier,
but not below HEADROOM times its largest value in any sample.
Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, 2019, arXiv 1906.04721.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper
from onnx.external_data_helper import uses_external_data
from tqdm import tqdm

from onnx_release.core.errors import ReleaseError
from onnx_release.core.workers import map_in_order
from onnx_release.data.samples import SampleFile
from onnx_release.graph.activations import constant_values, extract_subgraph, session_of
from onnx_release.graph.graph import node_inputs, tensor_array
from onnx_release.graph.layers import (
    Layer,
    as_matrix,
    attributes,
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


@dataclass(frozen=True)
class Equalized:
    """A model, how many of its values were scaled, and why none was although some could be, or an empty text."""

    model: ModelProto
    values: int
    failure: str = ""


def equalize_on(model: ModelProto, samples: SampleFile, chunk: int, weights: Path | None = None) -> Equalized:
    """Return an equalized copy of `model`, by the channel sizes in `samples`, or `model` itself.

    `weights` is the folder of the files that have weights of `model`. If the answers would differ, nothing is scaled.
    """
    values = [name for group in groups(model) for name in group.values]
    if not values:
        return Equalized(model, 0)
    outputs = [value.name for value in model.graph.output]
    try:
        session = session_of(extract_subgraph(model, [*values, *outputs]), weights=weights)
        sizes, wanted = measure_channels(session, values, samples, chunk)
        scaled, count = equalize(model, sizes, weights)
        error, again = OutputError(), session_of(scaled, weights=weights)
        for index, answers in enumerate(wanted):
            found = run_session(again, samples.batch(index))
            for name in outputs:
                if np.issubdtype(answers[name].dtype, np.floating):
                    error.add(answers[name], found[name])
    except (ReleaseError, ValueError, IndexError) as cause:
        return Equalized(model, 0, f"{type(cause).__name__}: {cause}")
    if not error.sqnr_db >= LEAST_SQNR_DB:
        return Equalized(model, 0, f"it would change the answers: {error.sqnr_db:.3g} dB SQNR")
    return Equalized(scaled, count)


def measure_channels(
    session: onnxruntime.InferenceSession, values: Sequence[str], samples: SampleFile, chunk: int
) -> tuple[dict[str, np.ndarray], list[dict[str, np.ndarray]]]:
    """Return the largest magnitude of each channel of `values`, float [channels], and the first `chunk` outputs."""

    def run(index: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        found = run_session(session, samples.batch(index))
        sizes = {name: channel_sizes(found[name]) for name in values}
        return sizes, {name: array for name, array in found.items() if name not in sizes} if index < chunk else {}

    sizes: dict[str, np.ndarray] = {}
    wanted = []
    progress = tqdm(map_in_order(run, range(len(samples)), chunk), "channels", len(samples), unit="sample")
    for index, (found, outputs) in enumerate(progress):
        sizes = {name: np.maximum(array, sizes.get(name, 0.0)) for name, array in found.items()}
        if index < chunk:
            wanted.append(outputs)
    return sizes, wanted


def channel_sizes(array: np.ndarray) -> np.ndarray:
    """Return the largest magnitude in each channel, axis 1; 0 if there is no value."""
    return np.abs(array).max(axis=tuple(axis for axis in range(array.ndim) if axis != 1), initial=0.0)


def equalize(model: ModelProto, sizes: Mapping[str, np.ndarray], weights: Path | None = None) -> tuple[ModelProto, int]:
    """Return a scaled copy of `model`, and how many values were scaled.

    `sizes` has the largest magnitude of each channel, float [channels], of the values in `groups`. `weights` is the
    folder of the files that have weights of `model`.
    """
    scaled = ModelProto()
    scaled.CopyFrom(model)
    tensors = initializers(scaled)
    count = 0
    for group in groups(scaled):
        found = [sizes[name] for name in group.values]
        if len({len(each) for each in found}) > 1:
            continue  # an Add that broadcasts
        largest = np.max(found, axis=0)
        scale = linear_scale(largest) if group.bound is None else bounded_scale(largest, group.bound)
        if (scale == 1).all() or not fits(group, tensors, len(scale)):
            continue
        for layer in (*group.makers, *group.takers):
            load_layer(layer, tensors, weights)
        for layer in group.makers:
            scale_outputs(layer, tensors, scale)
        for layer in group.takers:
            scale_inputs(layer, tensors, 1 / scale)
        count += len(group.values)
    return scaled, count


def fits(group: Group, tensors: Mapping[str, TensorProto], channels: int) -> bool:
    """Return whether the layers have as many outputs and inputs as the values have channels."""
    made = [output_channels(layer, tuple(tensors[layer.weight].dims)) for layer in group.makers]
    taken = [input_channels(layer, tuple(tensors[layer.weight].dims)) for layer in group.takers]
    biases = [math.prod(tensors[layer.bias].dims) for layer in group.makers if layer.bias]
    return {*made, *taken} <= {channels} and {*biases} <= {channels, 1}


def output_channels(layer: Layer, weight: tuple[int, ...]) -> int:
    """Return the number of output channels of a layer whose weight has this shape."""
    if layer.node.op_type == "Conv" or attributes(layer.node).get("transB", 0):
        return weight[0]
    return weight[1]


def input_channels(layer: Layer, weight: tuple[int, ...]) -> int:
    """Return the number of input channels of a layer whose weight has this shape."""
    if layer.node.op_type == "Conv":
        return weight[1] * layer.groups
    return weight[1] if attributes(layer.node).get("transB", 0) else weight[0]


def load_layer(layer: Layer, tensors: Mapping[str, TensorProto], weights: Path | None) -> None:
    """Bring the weight and the bias of a layer into the model, in place."""
    for tensor in (tensors[name] for name in (layer.weight, layer.bias) if name):
        if uses_external_data(tensor):
            set_array(tensor, tensor_array(tensor, weights))


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
