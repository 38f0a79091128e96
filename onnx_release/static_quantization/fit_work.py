"""Say what fitting each layer costs, and which layers are too wide to be fitted: rounding together takes inputs^2."""

import math
from collections.abc import Mapping

from onnx import ModelProto

from onnx_release.graph.layers import Layer, attributes, initializers, weighted_layers
from onnx_release.static_quantization.gptq import PAIR_SHARES, SCALE_SHARES
from onnx_release.static_quantization.rounding import POSITIONS

# The most elements of a layer's matrix of products, of which about eight are in memory: 200 MB each.
WIDEST = 5000**2
# Sums of products run on one thread, in float32 at half of the counted speed, and in float64 at a quarter.
FLOAT32, FLOAT64 = 2, 4
# Multiplying out, inverting and factoring a matrix, in multiply-adds for each inputs^3.
INVERSE = 4 / 3
# A weight is rounded for all outputs at once, in a twentieth of a millisecond.
COLUMN = 2.5e6


def layer_works(model: ModelProto, samples: int) -> dict[str, float]:
    """Return the multiply-adds of fitting each layer to `samples`, by name; infinite for one that is too wide."""
    tensors, shares = initializers(model), len(SCALE_SHARES) + len(PAIR_SHARES)
    works = {}
    for layer in weighted_layers(model):
        groups, outputs, inputs = matrix_shape(layer, tuple(tensors[layer.weight].dims))
        square = float(groups) * inputs**2
        work = square * samples * POSITIONS * FLOAT32 + square * inputs * INVERSE * FLOAT64
        work += square * outputs * (shares * FLOAT64 + FLOAT32) + inputs * COLUMN
        works[layer.name] = work if square <= WIDEST else math.inf
    return works


def matrix_shape(layer: Layer, weight: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the shape of the matrix of a layer, [groups, outputs, inputs], from that of its weight."""
    if layer.node.op_type == "Conv":
        return layer.groups, weight[0] // layer.groups, math.prod(weight[1:])
    transposed = layer.node.op_type == "Gemm" and attributes(layer.node).get("transB", 0)
    outputs, inputs = weight if transposed else weight[::-1]
    return 1, outputs, inputs


def rounded_plainly(works: Mapping[str, float], most: float) -> frozenset[str]:
    """Return the layers to round plainly, the costliest first, so that fitting the others takes at most `most`."""
    left = sum(work for work in works.values() if work < math.inf)
    plain = {name for name, work in works.items() if work == math.inf}
    for name in sorted(works, key=lambda name: -works[name]):
        if left <= most:
            break
        if name not in plain:
            plain.add(name)
            left -= works[name]
    return frozenset(plain)
