"""Limit 8-bit weights for CPUs that add two products in 16 bits, as x86-64 without VNNI does.

AVX2's vpmaddubsw multiplies uint8 activations with int8 weights and adds neighbouring products in 16 bits, where
255 * 127 * 2 saturates. onnxruntime's `reduce_range` halves every weight to prevent it. It is enough that the sum of
two neighbours of one sign is at most 128, and most weights are far below that. ONNX Runtime's kernels decide which
weights are neighbours: they go through the inputs of a group position by position, and at each position through the
channels. Depthwise convolutions have a kernel that adds in 32 bits. tests/static_quantization/test_saturation.py checks
all of this with the kernels.
"""

import numpy as np

from onnx_release.graph.layers import Layer
from onnx_release.graph.targets import Target
from onnx_release.static_quantization.gptq import Limits

# The greatest magnitude of int8 weights, since +128 does not exist, and one at which any two weights are safe.
FULL = 127
HALVED = 64


def weight_limits(target: Target, layer: Layer, shape: tuple[int, ...], kernel: tuple[int, ...]) -> Limits:
    """Return the limits of the quantized weights of a layer whose matrix has `shape` [groups, outputs, inputs]."""
    if not target.reduce_range:
        return Limits(FULL)
    _, outputs, inputs = shape
    if layer.node.op_type != "Conv":
        return Limits(FULL, neighbours(np.arange(inputs)))
    if len(kernel) != 2:
        return Limits(HALVED)  # these kernels were not examined
    positions = int(np.prod(kernel))
    channels = inputs // positions
    if channels == outputs == 1:
        return Limits(FULL)
    return Limits(FULL, neighbours(np.arange(inputs).reshape(channels, positions).T.ravel()))


def neighbours(order: np.ndarray) -> np.ndarray:
    """Return the pair partner of each input, for a kernel that takes them in this order; -1 for a single one."""
    partner = np.full(len(order), -1)
    pairs = order[: len(order) // 2 * 2].reshape(-1, 2)
    partner[pairs[:, 0]], partner[pairs[:, 1]] = pairs[:, 1], pairs[:, 0]
    return partner
