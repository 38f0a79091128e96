"""Cutting a graph at inner values."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnx_release.activations import constant_values, cut, float_values, session_of


@pytest.fixture
def model(save_graph):
    nodes = [
        helper.make_node("Constant", [], ["two"], value_float=2.0),
        helper.make_node("Mul", ["x", "two"], ["a"]),
        helper.make_node("Cast", ["a"], ["i"], to=TensorProto.INT64),
        helper.make_node("Cast", ["i"], ["b"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["b", "w"], ["y"]),
    ]
    return onnx.load(save_graph(nodes, [("x", [1, 2])], [("y", [1, 2])], {"w": np.array([1.0, 1.0], np.float32)}))


def test_float_values_are_inputs_and_outputs_but_no_constants_and_no_integers(model):
    assert float_values(model) == ["x", "a", "b", "y"]
    assert constant_values(model) == {"w", "two"}


def test_a_cut_computes_the_value_and_nothing_behind_it(model):
    part = cut(model, ["a"])
    assert [node.op_type for node in part.graph.node] == ["Constant", "Mul"]
    assert not part.graph.initializer
    (found,) = session_of(part).run(None, {"x": np.array([[1.25, 3]], np.float32)})
    np.testing.assert_array_equal(found, [[2.5, 6]])
