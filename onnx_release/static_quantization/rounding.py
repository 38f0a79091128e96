"""Fit the weights and biases of a quantized graph to the float one, layer by layer on calibration samples.

Each layer is fitted to its inputs after all layers before it have been quantized and fitted. The wanted outputs are
those of the float graph with its activations clipped like the quantized ones (see `clip_activations`).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto
from tqdm import tqdm

from onnx_release.core.workers import map_in_order
from onnx_release.data.samples import SampleFile
from onnx_release.graph.activations import extract_subgraph, session_of, step_by_step
from onnx_release.graph.graph import tensor_array
from onnx_release.graph.layers import Layer, as_matrix, initializers, kernel_shape, patches, weighted_layers
from onnx_release.graph.targets import Target
from onnx_release.runtime.session import run_session
from onnx_release.static_quantization.gptq import InputStatistics, corrected_bias, round_layer
from onnx_release.static_quantization.operators import Ranges
from onnx_release.static_quantization.qdq import clip_activations, in_order_of, shared_values
from onnx_release.static_quantization.quantized_graph import QuantizedGraph
from onnx_release.static_quantization.saturation import weight_limits

# How many positions of a feature map are drawn for each sample, since neighbours are much alike.
POSITIONS = 128
# How many samples are multiplied at once, and how many such blocks are under way at once.
SAMPLE_BLOCK = 8
CHUNK = 4

# The sum of a layer's inputs over positions, float64 [groups, inputs], and how many positions, by the layer's name.
Sums = dict[str, tuple[np.ndarray, int]]


@dataclass(frozen=True)
class Fit:
    """What to fit to: the samples of the indices `used`. Each weight of the layers `plain` is rounded by itself.

    `weights` is the folder of the files that have weights of the model.
    """

    samples: SampleFile
    used: Sequence[int]
    plain: Collection[str] = ()
    weights: Path | None = None


def fit_weights(model: ModelProto, quantized: ModelProto, ranges: Ranges, target: Target, fit: Fit) -> None:
    """Round the weights of `quantized` by their effect and correct its biases, in place.

    The values that later layers need are kept in memory for every sample used, most of them in 8 bits.
    """
    samples, used = fit.samples, fit.used
    layers, tensors, graph = weighted_layers(model), initializers(model), QuantizedGraph(quantized, fit.weights)
    if not layers:
        return
    wanted = wanted_means(clip_activations(model, quantized, ranges), layers, fit)
    inputs = {layer.name: graph.input_value(layer.name) for layer in layers}
    names = in_order_of(quantized, [*shared_values(quantized), *inputs.values()])
    feeds = [samples.batch(index) for index in used]
    steps = zip(names, step_by_step(quantized, names, feeds, SAMPLE_BLOCK * CHUNK, fit.weights), strict=True)
    taking = {name: [layer for layer in layers if inputs[layer.name] == name] for name in names}
    pairs = ((layer, data) for name, data in steps for layer in taking[name])
    for layer, data in tqdm(pairs, "rounding", len(layers), unit="layer"):
        statistics = input_statistics(layer, kernel_shape(layer, tensors), graph, data, fit)
        if statistics is not None:  # a sample brings a value to this layer
            fit_layer(layer, tensors, graph, target, statistics, wanted[layer.name])


def fit_layer(
    layer: Layer,
    tensors: Mapping[str, TensorProto],
    graph: QuantizedGraph,
    target: Target,
    found: InputStatistics,
    wanted: np.ndarray,
) -> None:
    """Round the weights of a layer for the inputs `found`, and let its bias give the mean that `wanted` inputs give."""
    weights = as_matrix(layer, tensor_array(tensors[layer.weight], graph.weights))
    if found.product.ndim > 2:
        weights = weights.astype(np.float64)
    fitted = weights
    if graph.is_quantized(layer.name):
        limits = weight_limits(target, layer, weights.shape, kernel_shape(layer, tensors))
        integers, scales = graph.widened(layer.name, weights, *round_layer(weights, found.covariance, limits))
        fitted = integers * scales[:, :, None]
        graph.set_weight(layer, integers, scales)
    if layer.bias:
        bias = tensor_array(tensors[layer.bias], graph.weights).astype(np.float64)
        graph.set_bias(layer.name, corrected_bias(weights, fitted, bias, wanted, found.mean))


def wanted_means(reference: ModelProto, layers: Sequence[Layer], fit: Fit) -> dict[str, np.ndarray]:
    """Return the mean of every layer's inputs in the float graph, float64 [groups, inputs], by the layer's name."""
    tensors = initializers(reference)
    inputs = {node.name: node.input[0] for node in reference.graph.node if node.input}
    part = extract_subgraph(reference, dict.fromkeys(inputs[layer.name] for layer in layers))
    session = session_of(part, weights=fit.weights)

    def sums(index: int) -> Sums:
        found = run_session(session, fit.samples.batch(index))
        taken = {
            layer.name: finite_positions(
                patches(layer, found[inputs[layer.name]], POSITIONS, index, kernel_shape(layer, tensors))
            )
            for layer in layers
        }
        return {name: (array.sum(axis=2, dtype=np.float64), array.shape[2]) for name, array in taken.items()}

    def added(one: Sums, other: Sums) -> Sums:
        return {name: (one[name][0] + total, one[name][1] + count) for name, (total, count) in other.items()}

    whole = reduce(added, map_in_order(sums, fit.used, SAMPLE_BLOCK * CHUNK))
    return {name: total / max(count, 1) for name, (total, count) in whole.items()}


def finite_positions(inputs: np.ndarray) -> np.ndarray:
    """Leave out the positions of float32 [groups, inputs, positions] with an input that is infinite or NaN.

    A layer that takes one stays in float, and a mean with infinity in it would make its bias NaN.
    """
    finite = np.isfinite(inputs).all(axis=(0, 1))
    return inputs if finite.all() else inputs[:, :, finite]


def input_statistics(
    layer: Layer,
    kernel: tuple[int, ...],
    graph: QuantizedGraph,
    data: Sequence[np.ndarray],
    fit: Fit,
) -> InputStatistics | None:
    """Return the statistics of a layer's finite inputs in the quantized graph; None if no sample has any.

    `data` has the `input_value` of each sample. Of a layer rounded plainly, only the variances are computed.
    """

    def block_statistics(block: int) -> InputStatistics | None:
        positions = range(block * SAMPLE_BLOCK, min((block + 1) * SAMPLE_BLOCK, len(fit.used)))
        found = [
            patches(layer, graph.as_floats(layer.name, data[position]), POSITIONS, fit.used[position], kernel)
            for position in positions
        ]
        joined = finite_positions(np.concatenate(found, axis=2))
        return InputStatistics.of(joined, layer.name in fit.plain) if joined.shape[2] else None

    blocks = map_in_order(block_statistics, range(-(-len(fit.used) // SAMPLE_BLOCK)), CHUNK)
    filled = [block for block in blocks if block is not None]
    return reduce(InputStatistics.merge, filled) if filled else None


def copy_fit(fitted: ModelProto, quantized: ModelProto, model: ModelProto, weights: Path | None = None) -> None:
    """Copy the weights and biases from `fitted` to `quantized`, for the layers that both quantize.

    `weights` is the folder of the files that have weights of `model`.
    """
    source, target = QuantizedGraph(fitted, weights), QuantizedGraph(quantized, weights)
    for layer in weighted_layers(model):
        if source.is_quantized(layer.name) and target.is_quantized(layer.name):
            target.copy_weight(source, layer.name)
            if layer.bias:
                target.set_bias(layer.name, source.bias(layer.name))
