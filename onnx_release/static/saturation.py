"""How large 8-bit weights may be where a CPU adds two products in 16 bits, as x86-64 without VNNI does.

AVX2's vpmaddubsw multiplies uint8 activations with int8 weights and adds neighbouring products in 16 bits, where
255 * 127 * 2 saturates. onnxruntime's `reduce_range` halves every weight against it. It is enough that no two
neighbours of one sign pass 128 together, which most weights do not come near. Who is whose neighbour is up to ONNX
Runtime's kernels: they go through the inputs of a group position by position, at each one channel after the other.
Depthwise convolutions have a kernel that adds in 32 bits. tests/static/test_saturation.py holds all of this against the
kernels.
"""

import numpy as np

from onnx_release.graph.layers import Layer
from onnx_release.graph.targets import Target
from onnx_release.static.gptq import Limits

# The greatest magnitude of int8 weights, as -128 has no counterpart, and one of which any two are safe.
FULL = 127
HALVED = 64


def weight_limits(target: Target, layer: Layer, shape: tuple[int, ...], kernel: tuple[int, ...]) -> Limits:
    """Return how large the quantized weights of a layer may be, whose matrix has `shape` [groups, outputs, inputs]."""
    if not target.reduce_range:
        return Limits(FULL)
    _, outputs, inputs = shape
    if layer.node.op_type != "Conv":
        return Limits(FULL, neighbours(np.arange(inputs)))
    if len(kernel) != 2:
        return Limits(HALVED)  # nobody has looked at these kernels
    positions = int(np.prod(kernel))
    channels = inputs // positions
    if channels == outputs == 1:
        return Limits(FULL)
    return Limits(FULL, neighbours(np.arange(inputs).reshape(channels, positions).T.ravel()))


def neighbours(order: np.ndarray) -> np.ndarray:
    """For each of the inputs, which a kernel takes in this order, the other of its pair; -1 for one that is left."""
    partner = np.full(len(order), -1)
    pairs = order[: len(order) // 2 * 2].reshape(-1, 2)
    partner[pairs[:, 0]], partner[pairs[:, 1]] = pairs[:, 1], pairs[:, 0]
    return partner
