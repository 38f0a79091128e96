"""Quantize with onnxruntime's own quantizer, from the ranges and with the types of the pipeline, for comparison."""

from collections.abc import Collection

import numpy as np
from onnx import ModelProto
from onnxruntime.quantization import QDQQuantizer, QuantType
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData

from onnx_release.graph.layers import clip_bounds, initializers
from onnx_release.graph.precision import only_errors
from onnx_release.graph.targets import Target
from onnx_release.static_quantization.operators import OPERATORS, Ranges

TYPES = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}


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
