"""Try narrower and wider activation ranges on the quantized graph itself, and keep what brings the answers closer.

A calibration method sees one tensor at a time and takes every value for equally important. Which outliers the network
can do without only its answers tell.
"""

from collections.abc import Callable

import numpy as np
from onnx import ModelProto, numpy_helper

from onnx_release.layers import initializers, set_array
from onnx_release.qdq import QUANTIZED_INPUT, producers

FACTORS = (0.8, 1.25)
# Less than this, in dB, is no reason to move.
LEAST_GAIN = 0.005


def refine_ranges(
    quantized: ModelProto, names: list[str], score: Callable[[ModelProto], float], may_go_on: Callable[[], bool]
) -> tuple[ModelProto, dict[str, float]]:
    """A better graph than `quantized` by `score`, if there is one, and by how much which ranges were multiplied.

    Sweeps over `names`, from the last to the first, until a sweep gains nothing or `may_go_on` says no.
    """
    best, factors = score(quantized), dict.fromkeys(names, 1.0)
    gained = True
    while gained:
        gained = False
        for name in reversed(names):
            for factor in FACTORS:
                while may_go_on():
                    trial = with_scaled_range(quantized, name, factor)
                    found = score(trial)
                    if found < best + LEAST_GAIN:
                        break
                    best, quantized, gained = found, trial, True
                    factors[name] *= factor
    return quantized, {name: factor for name, factor in factors.items() if factor != 1.0}


def with_scaled_range(quantized: ModelProto, name: str, factor: float) -> ModelProto:
    """A copy in which the range of the activation `name` is `factor` times as wide, with the same zero point."""
    result = ModelProto()
    result.CopyFrom(quantized)
    tensors, makers = initializers(result), producers(result)
    scales = {
        node.input[1]
        for node in result.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0].removesuffix(QUANTIZED_INPUT) == name
    }
    for scale in scales:
        set_array(tensors[scale], (numpy_helper.to_array(tensors[scale]) * np.float32(factor)).astype(np.float32))
    for node in result.graph.node:
        data = makers.get(node.input[0]) if node.op_type in ("Conv", "Gemm") and len(node.input) > 2 else None
        bias = makers.get(node.input[2]) if data is not None else None
        if data is not None and bias is not None and data.op_type == "DequantizeLinear" and data.input[1] in scales:
            # A quantized bias has the scale of the products, so it moves with that of the input.
            integers, unit = (tensors[bias.input[index]] for index in (0, 1))
            set_array(integers, np.rint(numpy_helper.to_array(integers) / factor).astype(np.int32))
            set_array(unit, (numpy_helper.to_array(unit) * np.float32(factor)).astype(np.float32))
    return result
