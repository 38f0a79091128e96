"""Fit the weights and biases of a quantized graph to the float one, layer by layer on calibration samples.

Each layer is fitted to its inputs after all layers before it have been quantized and fitted. The wanted outputs are
those of the float graph with its activations clipped like the quantized ones (see `clip_activations`).
"""

from collections.abc import Sequence
from functools import reduce

import numpy as np
from onnx import ModelProto, numpy_helper
from tqdm import tqdm

from onnx_release.core.workers import map_in_order
from onnx_release.data.samples import SampleFile
from onnx_release.graph.activations import extract_subgraph, session_of, step_by_step
from onnx_release.graph.layers import Layer, as_matrix, initializers, kernel_shape, patches, weighted_layers
from onnx_release.graph.targets import Target
from onnx_release.runtime.session import run_session
from onnx_release.static_quantization.gptq import InputStatistics, corrected_bias, round_layer
from onnx_release.static_quantization.qdq import Ranges, clip_activations
from onnx_release.static_quantization.quantized_graph import QuantizedGraph
from onnx_release.static_quantization.saturation import weight_limits

# How many positions of a feature map are drawn for each sample, since neighbours are much alike.
POSITIONS = 128
# How many samples are multiplied at once, and how many such blocks are under way at once.
SAMPLE_BLOCK = 8
CHUNK = 4

# The sum of a layer's inputs over positions, float64 [groups, inputs], and how many positions, by the layer's name.
Sums = dict[str, tuple[np.ndarray, int]]


def fit_weights(
    model: ModelProto, quantized: ModelProto, ranges: Ranges, target: Target, samples: SampleFile, used: Sequence[int]
) -> None:
    """Round the weights of `quantized` by their effect and correct its biases, in place; `used` are sample indices.

    The values that later layers need are kept in memory, in 8 bits, for every sample used.
    """
    layers, tensors, graph = weighted_layers(model), initializers(model), QuantizedGraph(quantized)
    if not layers:
        return
    wanted = wanted_means(clip_activations(model, quantized, ranges), layers, samples, used)
    names = [graph.input_value(layer.name) for layer in layers]
    feeds = [samples.batch(index) for index in used]
    steps = step_by_step(quantized, names, feeds, SAMPLE_BLOCK * CHUNK)
    for layer, data in tqdm(zip(layers, steps, strict=True), "rounding", len(layers), unit="layer"):
        weights = as_matrix(layer, numpy_helper.to_array(tensors[layer.weight])).astype(np.float64)
        kernel = kernel_shape(layer, tensors)
        statistics = input_statistics(layer, kernel, graph, data, used)
        fitted = weights
        if graph.is_quantized(layer.name):
            limits = weight_limits(target, layer, weights.shape, kernel)
            integers, scales = round_layer(weights, statistics.covariance, limits)
            fitted = integers * scales[:, :, None]
            graph.set_weight(layer, integers, scales)
        if layer.bias:
            bias = numpy_helper.to_array(tensors[layer.bias]).astype(np.float64)
            graph.set_bias(layer.name, corrected_bias(weights, fitted, bias, wanted[layer.name], statistics.mean))


def wanted_means(
    reference: ModelProto, layers: Sequence[Layer], samples: SampleFile, used: Sequence[int]
) -> dict[str, np.ndarray]:
    """Return the mean of every layer's inputs in the float graph, float64 [groups, inputs], by the layer's name."""
    tensors = initializers(reference)
    inputs = {node.name: node.input[0] for node in reference.graph.node}
    session = session_of(extract_subgraph(reference, dict.fromkeys(inputs[layer.name] for layer in layers)))

    def sums(index: int) -> Sums:
        found = run_session(session, samples.batch(index))
        taken = {
            layer.name: patches(layer, found[inputs[layer.name]], POSITIONS, index, kernel_shape(layer, tensors))
            for layer in layers
        }
        return {name: (array.sum(axis=2, dtype=np.float64), array.shape[2]) for name, array in taken.items()}

    def added(one: Sums, other: Sums) -> Sums:
        return {name: (one[name][0] + total, one[name][1] + count) for name, (total, count) in other.items()}

    whole = reduce(added, map_in_order(sums, used, SAMPLE_BLOCK * CHUNK))
    return {name: total / count for name, (total, count) in whole.items()}


def input_statistics(
    layer: Layer, kernel: tuple[int, ...], graph: QuantizedGraph, data: Sequence[np.ndarray], used: Sequence[int]
) -> InputStatistics:
    """Return the statistics of a layer's inputs in the quantized graph; `data` has the `input_value` of each sample."""

    def block_statistics(block: int) -> InputStatistics:
        positions = range(block * SAMPLE_BLOCK, min((block + 1) * SAMPLE_BLOCK, len(used)))
        found = [
            patches(layer, graph.as_floats(layer.name, data[position]), POSITIONS, used[position], kernel)
            for position in positions
        ]
        return InputStatistics.of(np.concatenate(found, axis=2))

    return reduce(InputStatistics.merge, map_in_order(block_statistics, range(-(-len(used) // SAMPLE_BLOCK)), CHUNK))


def copy_fit(fitted: ModelProto, quantized: ModelProto, model: ModelProto) -> None:
    """Copy the weights and biases from `fitted` to `quantized`, for the layers that both quantize."""
    source, target = QuantizedGraph(fitted), QuantizedGraph(quantized)
    for layer in weighted_layers(model):
        if source.is_quantized(layer.name) and target.is_quantized(layer.name):
            target.copy_weight(source, layer.name)
            if layer.bias:
                target.set_bias(layer.name, source.bias(layer.name))
