"""Put QuantizeLinear and DequantizeLinear around the operators of a graph, and find them again."""

from collections.abc import Collection, Mapping

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization import QDQQuantizer, QuantType
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData

from onnx_release.layers import initializers
from onnx_release.precision import only_errors
from onnx_release.targets import Target

# What ONNX Runtime has integer kernels for on CPUs, and what only moves values.
OPERATORS = (
    *("Conv", "Gemm", "MatMul", "Add", "Mul", "Clip", "Relu", "LeakyRelu", "Sigmoid", "Concat", "Resize"),
    *("GlobalAveragePool", "AveragePool", "MaxPool"),
    *("Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze"),
)
TYPES = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}
# The suffixes of QDQQuantizer's names.
QUANTIZED_INPUT, DEQUANTIZED = "_QuantizeLinear_Input", "_DequantizeLinear_Output"

Ranges = Mapping[str, tuple[float, float]]


def insert_qdq(model: ModelProto, ranges: Ranges, target: Target, float_nodes: Collection[str]) -> ModelProto:
    """A quantized copy of `model`, `float_nodes` apart: a scale for each output channel, and for each activation."""
    source = ModelProto()
    source.CopyFrom(model)
    limits = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
    for node in model.graph.node:
        if node.op_type in ("Clip", "Relu") and node.input[0] not in limits and node.output[0] in limits:
            limits[node.input[0]] = limits[node.output[0]]  # what is clipped anyway needs no range of its own
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
        nodes_to_exclude=list(float_nodes),
        op_types_to_quantize=list(OPERATORS),
        extra_options=options,
    )
    with only_errors():
        quantizer.quantize_model()
    quantizer.model.topological_sort()
    return quantizer.model.model


def clip_activations(model: ModelProto, quantized: ModelProto, ranges: Ranges) -> ModelProto:
    """`model` with every activation that `quantized` quantizes clipped to its range: what is left without rounding.

    It is what layers are fitted to. Against the float model, the few values beyond a range would drown the rest in any
    mean or product, though the answer hardly depends on them.
    """
    result = ModelProto()
    result.CopyFrom(model)
    wanted = quantized_activations(quantized) & set(ranges)
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


def quantized_activations(quantized: ModelProto) -> set[str]:
    """The activations that have a QuantizeLinear, by their names in the float model."""
    constants = initializers(quantized)
    nodes = [node for node in quantized.graph.node if node.op_type == "QuantizeLinear"]
    return {node.input[0].removesuffix(QUANTIZED_INPUT) for node in nodes if node.input[0] not in constants}


def producers(model: ModelProto) -> dict[str, NodeProto]:
    return {name: node for node in model.graph.node for name in node.output}


def is_quantized(node: NodeProto, makers: Mapping[str, NodeProto]) -> bool:
    """Whether both operands of a layer in a quantized graph are dequantized."""
    found = [makers.get(name) for name in node.input[:2]]
    return all(maker is not None and maker.op_type == "DequantizeLinear" for maker in found)


def with_float_layers(quantized: ModelProto, model: ModelProto, names: Collection[str]) -> ModelProto:
    """A copy of `quantized` in which the named layers have the weights and biases of `model`, and so compute in float.

    What they take and give is still quantized, since the ReLU6 before a QuantizeLinear is only in its range: an
    estimate, quickly made, of `insert_qdq` with these `float_nodes`.
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
    return result
