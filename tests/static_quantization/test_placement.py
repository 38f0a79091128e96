"""Where integers end is the cut with the least converted values, worked out by hand."""

import numpy as np
import onnx
from onnx import helper

from onnx_release.static_quantization.placement import float_by_placement

WEIGHT = np.ones((4, 4), np.float32)
KERNEL = np.ones((4, 4, 1, 1), np.float32)


def placed(save_graph, nodes, outputs, shape, float_nodes=()):
    nodes = [helper.make_node(operator, inputs, [made], name=made) for operator, inputs, made in nodes]
    weights = {"w": WEIGHT, "k": KERNEL, "b": np.ones(4, np.float32)}
    model = onnx.load(save_graph(nodes, [("x", shape)], [(name, shape) for name in outputs], weights))
    names = ["x", *(node.output[0] for node in nodes)]
    return float_by_placement(model, dict.fromkeys(names, (-1.0, 1.0)), dict.fromkeys(names, 16), float_nodes)


def test_a_residual_between_float_operators_stays_in_float(save_graph):
    nodes = [
        *[("Erf", ["x"], "n"), ("MatMul", ["n", "w"], "m"), ("Add", ["m", "b"], "bias"), ("Add", ["x", "bias"], "r")],
        *[("Erf", ["r"], "n2"), ("MatMul", ["n2", "w"], "m2"), ("Add", ["r", "m2"], "y")],
    ]
    assert placed(save_graph, nodes, ["y"], [4, 4]) == {"bias", "r", "y"}


def test_scores_before_a_softmax_and_their_product_stay_in_float(save_graph):
    nodes = [
        *[
            ("MatMul", ["x", "w"], "q"),
            ("Transpose", ["q"], "t"),
            ("MatMul", ["q", "t"], "s"),
            ("Mul", ["s", "b"], "c"),
        ],
        *[("Softmax", ["c"], "p"), ("MatMul", ["p", "q"], "v"), ("MatMul", ["v", "w"], "y")],
    ]
    assert placed(save_graph, nodes, ["y"], [4, 4]) == {"t", "s", "c", "v"}


def test_an_add_between_convolutions_is_quantized(save_graph):
    nodes = [
        *[("Conv", ["x", "k"], "c"), ("Relu", ["c"], "r"), ("Conv", ["r", "k"], "d"), ("Add", ["r", "d"], "a")],
        *[("Relu", ["a"], "s"), ("Conv", ["s", "k"], "e"), ("ReduceMean", ["s"], "m")],
    ]
    assert placed(save_graph, nodes, ["e", "m"], [1, 4, 2, 2]) == set()


def test_an_add_of_two_values_in_float_is_in_float_too(save_graph):
    nodes = [
        *[("Conv", ["x", "k"], "c"), ("Mul", ["c", "c"], "n"), ("Mul", ["c", "b"], "o"), ("Add", ["n", "o"], "a")],
        ("Conv", ["a", "k"], "y"),
    ]
    assert placed(save_graph, nodes, ["y"], [1, 4, 2, 2]) == set()
    assert placed(save_graph, nodes, ["y"], [1, 4, 2, 2], ["n", "o"]) == {"a"}


def test_a_chain_of_integers_behind_a_product_is_quantized(save_graph):
    nodes = [("MatMul", ["x", "w"], "m"), ("Add", ["m", "b"], "a"), ("Relu", ["a"], "r"), ("MatMul", ["r", "w"], "y")]
    assert placed(save_graph, nodes, ["y"], [4, 4]) == set()
