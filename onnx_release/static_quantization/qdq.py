"""Put QuantizeLinear and DequantizeLinear around the operators of a graph, and find them again."""

from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

from onnx_release.graph.activations import constant_values
from onnx_release.graph.graph import node_inputs, producers
from onnx_release.graph.layers import attributes, initializers
from onnx_release.graph.names import FreshNames, all_names
from onnx_release.graph.targets import Target
from onnx_release.static_quantization.insertion import QUANTIZED_INPUT, insert_nodes
from onnx_release.static_quantization.operators import PRODUCTS, Ranges, plan_quantization

# The operators whose float weights ONNX Runtime quantizes by itself.
QUANTIZED_WHEN_LOADED = ("Conv", "ConvTranspose", "Gemm")


def insert_qdq(
    model: ModelProto, ranges: Ranges, target: Target, float_nodes: Collection[str], weights: Path | None = None
) -> ModelProto:
    """Return a quantized copy of `model`, except `float_nodes`, with a scale for each output channel and activation.

    A product that no integer operator takes returns floats: the kernels do so at no cost, and nothing is clipped. A
    float operator takes a value that a float operator has made as it is. `weights` is the folder of the files that have
    weights of `model`, which those of float layers stay in.
    """
    plan = plan_quantization(model, ranges, target, float_nodes, weights)
    quantized = insert_nodes(model, plan, target, weights)
    keep_float(quantized)
    return quantized


def keep_float(quantized: ModelProto) -> None:
    """Prevent ONNX Runtime from quantizing layers that are in float on purpose, in place.

    Since 1.21, when it loads a model, it gives a layer between quantized ones int8 weights with one scale for all
    (microsoft/onnxruntime#22969), several decibels worse than float on MobileNetV2. It does not do so if the layer's
    input is dequantized with a scale for each channel; here all of these are equal.
    """
    tensors, makers = initializers(quantized), producers(quantized)
    names, nodes = FreshNames(all_names(quantized)), []
    for node in quantized.graph.node:
        maker = (
            makers.get(node.input[0]) if node.op_type in QUANTIZED_WHEN_LOADED and node.input[1] in tensors else None
        )
        if maker is not None and maker.op_type == "DequantizeLinear" and not tensors[maker.input[1]].dims:
            count = input_channels(node, tuple(tensors[node.input[1]].dims))
            parameters = [names.give(f"{node.name}_scales"), names.give(f"{node.name}_zero_points")]
            for name, equal in zip(parameters, maker.input[1:], strict=True):
                value = numpy_helper.to_array(tensors[equal])
                quantized.graph.initializer.append(numpy_helper.from_array(np.repeat(value, count), name))
            output = names.give(f"{node.name}_dequantized")
            inputs = [maker.input[0], *parameters]
            nodes.append(helper.make_node(maker.op_type, inputs, [output], f"{node.name}_dequantize", axis=1))
            node.input[0] = output
        nodes.append(node)
    del quantized.graph.node[:]
    quantized.graph.node.extend(nodes)


def input_channels(node: NodeProto, weight: tuple[int, ...]) -> int:
    """Return the size of axis 1 of a layer's input, by the shape of its weight."""
    found = attributes(node)
    if node.op_type == "Conv":
        return weight[1] * int(found.get("group", 1))
    return weight[1] if found.get("transB", 0) else weight[0]  # of a Gemm or a ConvTranspose


def clip_activations(model: ModelProto, quantized: ModelProto, ranges: Ranges) -> ModelProto:
    """Return `model` with every activation that `quantized` quantizes clipped to its range, but not rounded.

    Layers are fitted to it. In the float model, the few values beyond a range would dominate any mean or product,
    although the answer hardly depends on them.
    """
    result = ModelProto()
    result.CopyFrom(model)
    wanted = quantized_values(quantized).keys() & ranges.keys()
    outputs = {value.name for value in result.graph.output}
    nodes = list(result.graph.node)
    del result.graph.node[:]
    renamed: dict[str, str] = {}
    names = FreshNames(all_names(model))

    def clip(name: str) -> None:
        if name not in wanted or name in outputs:
            return
        bounds = [names.give(f"{name}_low"), names.give(f"{name}_high")]
        for bound, value in zip(bounds, ranges[name], strict=True):
            result.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), bound))
        renamed[name] = names.give(f"{name}_clipped")
        result.graph.node.append(helper.make_node("Clip", [name, *bounds], [renamed[name]], f"{name}_clip"))

    for value in result.graph.input:
        clip(value.name)
    for node in nodes:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        result.graph.node.append(node)
        for name in node.output:
            clip(name)
    return result


def quantized_values(quantized: ModelProto) -> dict[str, list[str]]:
    """Return the outputs of the QuantizeLinear nodes of each activation, by its name in the float model."""
    constants = initializers(quantized)
    found: dict[str, list[str]] = {}
    for node in quantized.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] not in constants:
            found.setdefault(node.input[0].removesuffix(QUANTIZED_INPUT), []).append(node.output[0])
    return found


def with_float_layers(quantized: ModelProto, model: ModelProto, names: Collection[str]) -> ModelProto:
    """Return a copy of `quantized` in which the named layers compute in float, with the weights and biases of `model`.

    Their inputs and outputs are still quantized, since a ReLU6 before a QuantizeLinear is only in its range. It is a
    quick estimate of `insert_qdq` with these `float_nodes`.
    """
    result = ModelProto()
    result.CopyFrom(quantized)
    fresh, copies = FreshNames(all_names(result)), dict[str, str]()
    tensors, originals = initializers(model), {node.name: node for node in model.graph.node}
    for node in result.graph.node:
        if node.name not in names:
            continue
        for index, name in enumerate(originals[node.name].input):
            if name not in tensors:
                continue
            if name not in copies:  # layers may share a weight or a bias
                copies[name] = fresh.give(name)
                copy = result.graph.initializer.add()
                copy.CopyFrom(tensors[name])
                copy.name = copies[name]
            node.input[index] = copies[name]
    keep_float(result)
    return result


def shared_values(quantized: ModelProto) -> list[str]:
    """Return the float values behind a product that several nodes take, as a residual does.

    Computed again for each taker, they would cost most of a network without 8-bit values between its layers.
    """
    constants = constant_values(quantized)
    taken = Counter(name for node in quantized.graph.node for name in dict.fromkeys(node_inputs(node)))
    kept: list[str] = []
    behind: set[str] = set()
    for node in quantized.graph.node:
        if node.op_type == "QuantizeLinear" or not (
            node.op_type in PRODUCTS or not behind.isdisjoint(node_inputs(node))
        ):
            continue
        for name in node.output:
            if taken[name] > 1 and name not in constants and node.op_type != "DequantizeLinear":
                kept.append(name)
            else:
                behind.add(name)
    return kept


def in_order_of(model: ModelProto, names: Iterable[str]) -> list[str]:
    """Return the names, each once, in the order in which the graph makes them, after its inputs."""
    made = {name: place for place, node in enumerate(model.graph.node) for name in node.output}
    return sorted(dict.fromkeys(names), key=lambda name: made.get(name, -1))
