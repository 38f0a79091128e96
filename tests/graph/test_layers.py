"""Layers as matrices: patches times weights are what ONNX Runtime computes."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnx_release.graph.layers import as_matrix, draw_positions, from_matrix, initializers, patches, weighted_layers
from onnx_release.runtime.session import open_session

RANDOM = np.random.default_rng(0)


def conv(weight_shape, data_shape, **attributes):
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], name="layer", **attributes)
    return node, RANDOM.normal(size=weight_shape).astype(np.float32), data_shape


CASES = {
    "1x1": conv((5, 4, 1, 1), (2, 4, 6, 6)),
    "3x3": conv((5, 4, 3, 3), (1, 4, 6, 7), pads=[1, 0, 2, 1]),
    "strided and dilated": conv((5, 4, 3, 2), (1, 4, 9, 8), strides=[2, 3], dilations=[2, 1]),
    "depthwise": conv((4, 1, 3, 3), (1, 4, 6, 6), group=4, pads=[1, 1, 1, 1]),
    "two groups": conv((6, 2, 3, 3), (1, 4, 6, 6), group=2),
    "one-dimensional": conv((5, 4, 3), (1, 4, 9), pads=[1, 1]),
    "Gemm": (helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="layer"), np.ones((4, 5), np.float32), (3, 4)),
    "Gemm transB": (
        helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="layer", transB=1),
        RANDOM.normal(size=(5, 4)).astype(np.float32),
        (3, 4),
    ),
    "MatMul": (
        helper.make_node("MatMul", ["x", "w"], ["y"], name="layer"),
        RANDOM.normal(size=(4, 5)).astype(np.float32),
        (2, 3, 4),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_patches_times_the_matrix_are_the_layers_outputs(save_graph, case):
    node, weight, shape = CASES[case]
    matmul = node.op_type == "MatMul"
    bias = {} if matmul else {"b": np.zeros(weight.shape[1] if case == "Gemm" else len(weight), np.float32)}
    path = save_graph([node], [("x", shape)], [("y", ["?"] * len(shape))], {"w": weight, **bias})
    (layer,) = weighted_layers(onnx.load(path))
    assert layer.bias == ("" if matmul else "b")
    data = RANDOM.normal(size=shape).astype(np.float32)
    (expected,) = open_session(path).run(None, {"x": data})
    matrix = as_matrix(layer, weight)
    np.testing.assert_array_equal(from_matrix(layer, matrix, weight.shape), weight)
    found = matrix @ patches(layer, data, 10_000, 0, weight.shape[2:])  # [groups, outputs, positions]
    found = found.reshape(-1, found.shape[2])
    rows = np.moveaxis(expected, 1 if node.op_type == "Conv" else -1, 0).reshape(len(found), -1)
    np.testing.assert_allclose(found, rows, rtol=1e-4, atol=1e-5)


def test_a_limit_draws_positions_the_same_each_time():
    chosen = draw_positions(1000, 10, 3)
    assert len(chosen) == 10 and (np.diff(chosen) > 0).all()
    np.testing.assert_array_equal(chosen, draw_positions(1000, 10, 3))
    assert list(draw_positions(4, 10, 0)) == [0, 1, 2, 3]


def test_shared_weights_and_scaled_gemms_are_left_out(save_graph):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="one"),
        helper.make_node("MatMul", ["a", "w"], ["b"], name="two"),
        helper.make_node("Gemm", ["b", "v"], ["y"], name="three", alpha=2.0),
    ]
    weights = {"w": np.eye(3, dtype=np.float32), "v": np.eye(3, dtype=np.float32)}
    model = onnx.load(save_graph(nodes, [("x", [1, 3])], [("y", [1, 3])], weights))
    assert weighted_layers(model) == []
    assert numpy_helper.to_array(initializers(model)["w"]).shape == (3, 3)
