"""Fit the weights and biases of a quantized graph to the float one, layer by layer on calibration samples.

Each layer is fitted to the inputs that it gets once all layers before it are quantized and fitted. What it should
answer comes from the float graph with its activations clipped as the quantized ones are (see `clip_activations`).
"""

from collections.abc import Mapping, Sequence
from functools import reduce

import numpy as np
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper
from tqdm import tqdm

from onnx_release.activations import cut, session_of
from onnx_release.gptq import InputStatistics, corrected_bias, round_layer
from onnx_release.layers import Layer, as_matrix, from_matrix, initializers, patches, set_array, weighted_layers
from onnx_release.qdq import Ranges, clip_activations, is_quantized, producers
from onnx_release.samples import SampleFile, with_batch_axis
from onnx_release.targets import Target
from onnx_release.workers import in_order

# Positions of a feature map that count, drawn anew for each sample: neighbours say much the same.
POSITIONS = 256
# Samples that are multiplied at once, and blocks of them under way at once.
BLOCK = 8
CHUNK = 4


def fit_weights(
    model: ModelProto, quantized: ModelProto, ranges: Ranges, target: Target, samples: SampleFile, used: Sequence[int]
) -> None:
    """Round the weights of `quantized` by their effect and correct its biases, in place; `used` are sample indices."""
    reference = clip_activations(model, quantized, ranges)
    wanted_inputs = {node.name: node.input[0] for node in reference.graph.node}
    nodes = {node.name: node for node in quantized.graph.node}
    makers, tensors = producers(quantized), initializers(quantized)
    float_tensors = initializers(model)
    for layer in tqdm(weighted_layers(model), "rounding", unit="layer"):
        node = nodes[layer.name]
        weight = numpy_helper.to_array(float_tensors[layer.weight])
        weights = as_matrix(layer, weight).astype(np.float64)
        sessions = session_of(cut(quantized, [node.input[0]])), session_of(cut(reference, [wanted_inputs[layer.name]]))
        statistics = input_statistics(layer, weight.shape, weights, sessions, samples, used)
        fitted, scales = weights, np.ones(weights.shape[:2])
        if is_quantized(node, makers):
            integers, scales = round_layer(weights, statistics, target.weight_limit)
            fitted = integers * scales[:, :, None].astype(np.float64)
            write_weight(makers[node.input[1]], layer, integers, scales, makers, tensors)
        if layer.bias:
            bias = numpy_helper.to_array(float_tensors[layer.bias]).astype(np.float64)
            write_bias(node, corrected_bias(weights, fitted, bias, statistics), scales.ravel(), makers, tensors)


def input_statistics(
    layer: Layer,
    shape: tuple[int, ...],
    weights: np.ndarray,
    sessions: tuple[onnxruntime.InferenceSession, onnxruntime.InferenceSession],
    samples: SampleFile,
    used: Sequence[int],
) -> InputStatistics:
    """Of the layer's inputs in the quantized and in the reference graph, whose sessions are given in this order."""

    def inputs(index: int) -> list[np.ndarray]:
        feed = with_batch_axis(samples.inputs(index))
        return [patches(layer, session.run(None, feed)[0], POSITIONS, index, shape[2:]) for session in sessions]

    def block_statistics(block: int) -> InputStatistics:
        found = [inputs(index) for index in used[block * BLOCK : (block + 1) * BLOCK]]
        statistics = InputStatistics.empty(weights.shape[0], weights.shape[2])
        statistics.add(*(np.concatenate(kind, axis=2) for kind in zip(*found, strict=True)))
        return statistics

    blocks = range(-(-len(used) // BLOCK))
    return reduce(InputStatistics.merge, in_order(block_statistics, blocks, CHUNK))


def write_weight(
    dequantize: NodeProto,
    layer: Layer,
    integers: np.ndarray,
    scales: np.ndarray,
    makers: Mapping[str, NodeProto],
    tensors: Mapping[str, TensorProto],
) -> None:
    """Put the integers behind the DequantizeLinear of a weight; where a QuantizeLinear makes them, their floats."""
    scale = tensors[dequantize.input[1]]
    set_array(scale, scales.astype(np.float32).reshape(tuple(scale.dims)))
    name = weight_tensor(dequantize, makers)
    values = integers if name == dequantize.input[0] else (integers * scales[:, :, None]).astype(np.float32)
    set_array(tensors[name], from_matrix(layer, values, tuple(tensors[name].dims)))


def write_bias(
    node: NodeProto,
    bias: np.ndarray,
    weight_scales: np.ndarray,
    makers: Mapping[str, NodeProto],
    tensors: Mapping[str, TensorProto],
) -> None:
    """A float bias is written as it is, a quantized one as int32 at the scale of the products that it is added to."""
    dequantize = makers.get(node.input[2])
    if dequantize is None:
        set_array(tensors[node.input[2]], bias.astype(np.float32))
        return
    input_scale = numpy_helper.to_array(tensors[makers[node.input[0]].input[1]])
    scales = (input_scale.reshape(()) * weight_scales).astype(np.float32)
    bounds = np.iinfo(np.int32)
    integers = np.clip(np.rint(bias / scales), bounds.min, bounds.max).astype(np.int32)
    set_array(tensors[dequantize.input[0]], integers)
    set_array(tensors[dequantize.input[1]], scales)


def copy_fit(fitted: ModelProto, quantized: ModelProto, model: ModelProto) -> None:
    """Give the layers of `quantized` the weights and biases that they have in `fitted`, where both quantize them."""
    sources, targets = ({node.name: node for node in graph.graph.node} for graph in (fitted, quantized))
    makers, new_makers = producers(fitted), producers(quantized)
    tensors, new_tensors = initializers(fitted), initializers(quantized)
    for layer in weighted_layers(model):
        node, new = sources[layer.name], targets[layer.name]
        if not is_quantized(node, makers) or not is_quantized(new, new_makers):
            continue
        dequantize, new_dequantize = makers[node.input[1]], new_makers[new.input[1]]
        old, fresh = weight_tensor(dequantize, makers), weight_tensor(new_dequantize, new_makers)
        set_array(new_tensors[fresh], numpy_helper.to_array(tensors[old]))
        scales = numpy_helper.to_array(tensors[dequantize.input[1]])
        set_array(new_tensors[new_dequantize.input[1]], scales)
        if layer.bias:
            write_bias(new, read_bias(node, makers, tensors), scales.ravel(), new_makers, new_tensors)


def weight_tensor(dequantize: NodeProto, makers: Mapping[str, NodeProto]) -> str:
    """The initializer behind the DequantizeLinear of a weight: integers, or floats where a QuantizeLinear follows."""
    quantize = makers.get(dequantize.input[0])
    return str(dequantize.input[0] if quantize is None else quantize.input[0])


def read_bias(node: NodeProto, makers: Mapping[str, NodeProto], tensors: Mapping[str, TensorProto]) -> np.ndarray:
    """The bias of a layer in a quantized graph, in floats."""
    dequantize = makers.get(node.input[2])
    if dequantize is None:
        return numpy_helper.to_array(tensors[node.input[2]])
    integers, scales = (numpy_helper.to_array(tensors[name]) for name in dequantize.input[:2])
    return integers * scales.astype(np.float64)
