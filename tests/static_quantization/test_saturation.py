"""Which weights share 16 bits in an AVX2 kernel, compared with ONNX Runtime's kernels themselves."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnx_release.graph.layers import as_matrix, from_matrix, patches, weighted_layers
from onnx_release.graph.targets import TARGETS
from onnx_release.static_quantization.gptq import Limits
from onnx_release.static_quantization.saturation import neighbours, weight_limits
from tests.avx2 import AVAILABLE, outputs_on_avx2

AVX2 = TARGETS["avx2"]
NODES: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "1x1": ("Conv", (16, 32, 1, 1), {}),
    "1x1 of an odd number of channels": ("Conv", (16, 7, 1, 1), {}),
    "1x1 of many channels": ("Conv", (24, 1024, 1, 1), {}),
    "1x1 with strides": ("Conv", (16, 32, 1, 1), {"strides": [2, 2]}),
    "3x3 of three channels": ("Conv", (16, 3, 3, 3), {"pads": [1] * 4}),
    "3x3": ("Conv", (16, 8, 3, 3), {"pads": [1] * 4}),
    "3x3 of six channels": ("Conv", (16, 6, 3, 3), {}),
    "3x3, dilated": ("Conv", (16, 8, 3, 3), {"dilations": [2, 2]}),
    "5x3 with strides": ("Conv", (16, 8, 5, 3), {"strides": [2, 1]}),
    "groups": ("Conv", (16, 4, 3, 3), {"group": 4}),
    "groups of odd channels": ("Conv", (12, 3, 3, 3), {"group": 4}),
    "depthwise": ("Conv", (16, 1, 3, 3), {"group": 16, "pads": [1] * 4}),
    "depthwise 5x5 with strides": ("Conv", (16, 1, 5, 5), {"group": 16, "strides": [2, 2]}),
    "depthwise 7x7": ("Conv", (20, 1, 7, 7), {"group": 20, "pads": [3] * 4}),
    "two outputs of each channel": ("Conv", (32, 1, 3, 3), {"group": 16}),
    "one channel": ("Conv", (1, 1, 3, 3), {}),
    "one-dimensional": ("Conv", (16, 8, 3), {}),
    "Gemm": ("Gemm", (33, 16), {}),
    "Gemm transB": ("Gemm", (16, 70), {"transB": 1}),
    "MatMul": ("MatMul", (48, 16), {}),
}
# Kernels that add in 32 bits.
SAFE = {"depthwise", "depthwise 5x5 with strides", "depthwise 7x7", "one channel"}
STEP = 2.0**13  # a power of two: what the kernels do with their sums is exact


@pytest.mark.parametrize(
    ("order", "partner"), [([0, 1, 2, 3], [1, 0, 3, 2]), ([0, 2, 1], [2, -1, 0]), ([2, 0, 3, 1, 4], [2, 3, 0, 1, -1])]
)
def test_neighbours_are_pairs_in_the_order_given(order, partner):
    assert neighbours(np.array(order)).tolist() == partner


def layer_of(kind):
    operator, shape, attributes = NODES[kind]
    node = helper.make_node(operator, ["x", "w"], ["y"], name="layer", **attributes)
    weights = [numpy_helper.from_array(np.ones(shape, np.float32), "w")]
    model = helper.make_model(helper.make_graph([node], "graph", [], [], weights))
    (layer,) = weighted_layers(model)
    return layer, as_matrix(layer, np.ones(shape, np.float32)).shape


def limits_of(kind):
    layer, shape = layer_of(kind)
    return weight_limits(AVX2, layer, shape, NODES[kind][1][2:])


def test_targets_that_do_not_saturate_have_all_of_int8():
    layer, shape = layer_of("3x3")
    limits = weight_limits(TARGETS["vnni"], layer, shape, (3, 3))
    assert limits.most == 127 and limits.partner is None


def test_pairs_go_through_the_channels_of_a_position_and_depthwise_has_none():
    assert limits_of("1x1 of an odd number of channels").partner.tolist() == [1, 0, 3, 2, 5, 4, -1]
    partner = limits_of("3x3 of three channels").partner.reshape(3, 9)  # [channel, position]
    assert (partner[0, 0], partner[1, 0]) == (9, 0)
    assert (partner[2, 0], partner[0, 1]) == (1, 18)
    assert limits_of("depthwise").partner is None and limits_of("depthwise").most == 127
    assert limits_of("two outputs of each channel").partner is not None
    assert limits_of("one-dimensional").most == 64


def largest_weights(shape, limits, random):
    """int8 [groups, outputs, inputs] that `limits` allows, with as much as it allows in every pair."""
    weights = random.choice([-127, -64, 64, 127], size=shape)
    if limits.partner is not None:
        second = np.flatnonzero((limits.partner >= 0) & (limits.partner < np.arange(shape[2])))
        weights[..., second] = np.clip(weights[..., second], *limits.bounds(weights[..., limits.partner[second]]))
    return np.clip(weights, -limits.most, limits.most).astype(np.int8)


def write_case(path, kind, limits, random):
    """Write a quantized layer with such weights; give an input, and what comes of it without saturation."""
    operator, shape, attributes = NODES[kind]
    layer, matrix_shape = layer_of(kind)
    matrix = largest_weights(matrix_shape, limits, random)
    size = [9] * (len(shape) - 2)
    data = random.integers(200, 256, size=(1 if size else 5, channels_of(kind), *size))
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "one", "zero"], ["x_float"]),
        helper.make_node("DequantizeLinear", ["w", "one", "w_zero"], ["w_float"]),
        helper.make_node(operator, ["x_float", "w_float"], ["y_float"], name="layer", **attributes),
        helper.make_node("QuantizeLinear", ["y_float", "step", "middle"], ["y"]),
    ]
    constants = {
        "w": from_matrix(layer, matrix, shape),
        "one": np.array(1, np.float32),
        "zero": np.array(0, np.uint8),
        "w_zero": np.array(0, np.int8),
        "step": np.array(STEP, np.float32),
        "middle": np.array(128, np.uint8),
    }
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, data.shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.UINT8, None)],
        [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    found = matrix.astype(np.int64) @ patches(layer, data, 10**6, 0, shape[2:])
    sums = found.reshape(-1, found.shape[2])  # [outputs, positions]
    return data.astype(np.uint8), np.clip(np.rint(sums / STEP) + 128, 0, 255)


def channels_of(kind):
    operator, shape, attributes = NODES[kind]
    if operator == "Conv":
        return shape[1] * attributes.get("group", 1)
    return shape[1] if attributes.get("transB") else shape[0]


@pytest.fixture(scope="module")
def wrong(tmp_path_factory):
    """For every kind of layer, the shares of outputs that AVX2 gets wrong, within the limits and with all of int8."""
    if not AVAILABLE:
        pytest.skip("needs valgrind, on x86-64")
    folder, random = tmp_path_factory.mktemp("saturation"), np.random.default_rng(0)
    cases: list[tuple[Path, dict[str, np.ndarray]]] = []
    expected, kinds = [], []
    for kind in NODES:
        for limits in (limits_of(kind), Limits(127)):
            path = folder / f"{len(cases)}.onnx"
            data, wanted = write_case(path, kind, limits, random)
            cases.append((path, {"x": data}))
            expected.append(wanted)
            kinds.append(kind)
    shares = []
    for kind, wanted, found in zip(kinds, expected, outputs_on_avx2(cases), strict=True):
        axis = 1 if NODES[kind][0] == "Conv" else -1
        outputs = np.moveaxis(found["y"], axis, 0).reshape(len(wanted), -1)
        shares.append(float((outputs != wanted).mean()))
    return dict(zip(NODES, zip(shares[::2], shares[1::2], strict=True), strict=True))


@pytest.mark.parametrize("kind", NODES)
def test_weights_within_the_limits_do_not_saturate_and_others_would(wrong, kind):
    within, all_of_int8 = wrong[kind]
    assert within == 0
    assert (all_of_int8 == 0) == (kind in SAFE)
