"""Put QuantizeLinear and DequantizeLinear around the operators of a graph, and find them again."""

from collections.abc import Collection, Mapping

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization import QDQQuantizer, QuantType
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData

from onnx_release.graph.graph import producers
from onnx_release.graph.layers import attributes, clip_bounds, initializers
from onnx_release.graph.precision import only_errors
from onnx_release.graph.targets import Target

# The operators with integer kernels in ONNX Runtime on CPUs, and those that only move values.
OPERATORS = (
    *("Conv", "Gemm", "MatMul", "Add", "Mul", "Clip", "Relu", "LeakyRelu", "Sigmoid", "Concat", "Resize"),
    *("GlobalAveragePool", "AveragePool", "MaxPool"),
    *("Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze"),
)
TYPES = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}
# The operators with integer kernels that have a float output.
FLOAT_OUTPUT = ("Gemm", "MatMul")
# The operators whose float weights ONNX Runtime quantizes by itself.
QUANTIZED_WHEN_LOADED = ("Conv", "ConvTranspose", "Gemm")
# QDQQuantizer's suffix for the name of the input of a QuantizeLinear.
QUANTIZED_INPUT = "_QuantizeLinear_Input"

Ranges = Mapping[str, tuple[float, float]]


def insert_qdq(model: ModelProto, ranges: Ranges, target: Target, float_nodes: Collection[str]) -> ModelProto:
    """Return a quantized copy of `model`, except `float_nodes`, with a scale for each output channel and activation."""
    quantized = run_quantizer(model, ranges, target, float_nodes)
    free_outputs(quantized)
    keep_float(quantized)
    return quantized


def run_quantizer(model: ModelProto, ranges: Ranges, target: Target, float_nodes: Collection[str]) -> ModelProto:
    """Quantize a copy of `model` with onnxruntime's own quantizer."""
    source = ModelProto()
    source.CopyFrom(model)
    limits = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
    for node in model.graph.node:
        if node.op_type in ("Clip", "Relu") and node.input[0] not in limits and node.output[0] in limits:
            limits[node.input[0]] = limits[node.output[0]]  # the input of a Clip or Relu gets the range of its output
    options = {}
    if target.symmetric:
        options = {
            "ActivationSymmetric": True,
            "QuantizeBias": False,
            "DedicatedQDQPair": True,
            "AddQDQPairToWeight": True,
            "OpTypesToExcludeOutputQuantization": list(OPERATORS),
        }
    quantizer = QDQQuantizer(
        source,
        per_channel=True,
        reduce_range=target.reduce_range,
        weight_qType=QuantType.QInt8,
        activation_qType=TYPES[target.activation_type],
        tensors_range=TensorsData(CalibrationMethod.MinMax, limits),
        nodes_to_quantize=[],
        nodes_to_exclude=[*float_nodes, *kept_clips(model)],
        op_types_to_quantize=list(OPERATORS),
        extra_options=options,
    )
    with only_errors():
        quantizer.quantize_model()
    quantizer.model.topological_sort()
    return quantizer.model.model


def kept_clips(model: ModelProto) -> list[str]:
    """Return the Clips that no range can replace: 0, which it includes, is out of bounds, or a bound is computed."""
    tensors = initializers(model)
    bounds = {node.name: clip_bounds(node, tensors) for node in model.graph.node if node.op_type == "Clip"}
    return [name for name, found in bounds.items() if found is None or not found[0] <= 0 <= found[1]]


def free_outputs(quantized: ModelProto) -> None:
    """Let products that are an output of the graph return floats, in place; the kernels do so at no cost.

    Answers beyond those of calibration are then not clipped.
    """
    makers = producers(quantized)
    taken = [name for node in quantized.graph.node for name in node.input]
    for value in quantized.graph.output:
        dequantize = makers.get(value.name)
        if dequantize is None or dequantize.op_type != "DequantizeLinear" or value.name in taken:
            continue
        quantize = makers.get(dequantize.input[0])
        if quantize is None:
            continue
        product = makers.get(quantize.input[0])
        if product is not None and product.op_type in FLOAT_OUTPUT and taken.count(product.output[0]) == 1:
            product.output[0] = value.name
            quantized.graph.node.remove(quantize)
            quantized.graph.node.remove(dequantize)


def keep_float(quantized: ModelProto) -> None:
    """Prevent ONNX Runtime from quantizing layers that are in float on purpose, in place.

    Since 1.21, when it loads a model, it gives a layer between quantized ones int8 weights with one scale for all
    (microsoft/onnxruntime#22969), several decibels worse than float on MobileNetV2. It does not do so if the layer's
    input is dequantized with a scale for each channel; here all of these are equal.
    """
    tensors, makers = initializers(quantized), producers(quantized)
    nodes = []
    for node in quantized.graph.node:
        maker = (
            makers.get(node.input[0]) if node.op_type in QUANTIZED_WHEN_LOADED and node.input[1] in tensors else None
        )
        if maker is not None and maker.op_type == "DequantizeLinear" and not tensors[maker.input[1]].dims:
            count = input_channels(node, tuple(tensors[node.input[1]].dims))
            parameters = [f"{node.name}_scales", f"{node.name}_zero_points"]
            for name, equal in zip(parameters, maker.input[1:], strict=True):
                value = numpy_helper.to_array(tensors[equal])
                quantized.graph.initializer.append(numpy_helper.from_array(np.repeat(value, count), name))
            output = f"{node.name}_dequantized"
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

    def clip(name: str) -> None:
        if name not in wanted or name in outputs:
            return
        bounds = [f"{name}_low", f"{name}_high"]
        for bound, value in zip(bounds, ranges[name], strict=True):
            result.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), bound))
        renamed[name] = f"{name}_clipped"
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
    makers, known = producers(result), initializers(result)
    tensors, originals = initializers(model), {node.name: node for node in model.graph.node}
    for node in result.graph.node:
        if node.name not in names:
            continue
        for index, name in enumerate(originals[node.name].input):
            if name in tensors:
                copy = TensorProto()
                copy.CopyFrom(tensors[name])
                copy.name = name if name not in known and name not in makers else f"{name}_float"
                result.graph.initializer.append(copy)
                node.input[index] = copy.name
    keep_float(result)
    return result
