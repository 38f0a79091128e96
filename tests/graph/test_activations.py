"""Cutting a graph at inner values, and going through it step by step."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnx_release.graph import activations
from onnx_release.graph.activations import (
    constant_values,
    descendants,
    extract_subgraph,
    float_values,
    run_on,
    session_of,
    step_by_step,
    value_types,
)
from onnx_release.graph.graph import node_inputs
from onnx_release.graph.layers import initializers, set_array


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
    part = extract_subgraph(model, ["a"])
    assert [node.op_type for node in part.graph.node] == ["Constant", "Mul"]
    assert not part.graph.initializer
    (found,) = session_of(part).run(None, {"x": np.array([[1.25, 3]], np.float32)})
    np.testing.assert_array_equal(found, [[2.5, 6]])


def test_a_cut_keeps_a_constant_that_is_itself_an_output(model):
    x = np.array([[1.25, 3]], np.float32)
    weight, product = session_of(extract_subgraph(model, ["w", "a"])).run(None, {"x": x})
    assert (weight.tolist(), product.tolist()) == ([1, 1], [[2.5, 6]])


def test_a_cut_starts_from_what_is_known(model):
    part = extract_subgraph(model, ["y"], {"x": TensorProto.FLOAT, "i": TensorProto.INT64})
    assert [node.output[0] for node in part.graph.node] == ["b", "y"]
    assert [value.name for value in part.graph.input] == ["i"]
    known = {"x": np.zeros((1, 2), np.float32), "i": np.array([[3, 4]])}
    assert run_on(session_of(part), known)["y"].tolist() == [[4, 5]]


def test_a_cut_computes_an_output_that_is_known_and_taken_further(model):
    feed = {"x": np.array([[1.25, 3]], np.float32), "a": np.zeros((1, 2), np.float32)}
    part = extract_subgraph(model, ["a", "y"], dict.fromkeys(feed, TensorProto.FLOAT))
    found = run_on(session_of(part), feed)
    assert (found["a"].tolist(), found["y"].tolist()) == ([[2.5, 6]], [[3, 7]])


def test_a_cut_runs_an_operator_again_of_which_one_output_is_known(save_graph):
    halves = helper.make_node("Split", ["x"], ["low", "high"], axis=1, num_outputs=2)
    total = helper.make_node("Add", ["low", "high"], ["y"])
    model = onnx.load(save_graph([halves, total], [("x", [1, 4])], [("y", [1, 2])], {}))
    feed = {"x": np.array([[1, 2, 3, 4]], np.float32), "low": np.array([[10, 20]], np.float32)}
    session = session_of(extract_subgraph(model, ["y"], dict.fromkeys(feed, TensorProto.FLOAT)))
    assert run_on(session, feed)["y"].tolist() == [[13, 24]]


def test_descendants_are_what_depends_on_a_value_or_a_weight(model):
    assert descendants(model, ["a"]) == {"i", "b", "y"}
    assert descendants(model, ["w"]) == {"y"}
    assert descendants(model, ["x", "b"]) == {"a", "i", "y"}


@pytest.fixture
def diamond(save_graph):
    """y = v (w x + x) + w x, step by step."""
    nodes = [
        helper.make_node("Mul", ["x", "w"], ["a"]),
        helper.make_node("Add", ["a", "x"], ["b"]),
        helper.make_node("Mul", ["b", "v"], ["c"]),
        helper.make_node("Add", ["c", "a"], ["y"]),
    ]
    weights = {"w": np.full(1, 2, np.float32), "v": np.full(1, 10, np.float32)}
    return onnx.load(save_graph(nodes, [("x", ["n", 1])], [("y", ["n", 1])], weights))


FEEDS = [{"x": np.full((1, 1), value, np.float32)} for value in (1, 2, 3)]


def test_steps_give_every_value_of_every_feed(diamond):
    found = [np.ravel(values).tolist() for values in step_by_step(diamond, "xaby", FEEDS, 2)]
    assert found == [[1, 2, 3], [2, 4, 6], [3, 6, 9], [32, 64, 96]]


def test_a_step_sees_the_weights_of_its_time(diamond):
    tensors, found = initializers(diamond), {}
    for name, values in zip("ay", step_by_step(diamond, "ay", FEEDS, 2), strict=True):
        found[name] = np.ravel(values).tolist()
        set_array(tensors["w"], np.full(1, 1000, np.float32))  # too late for a, which is not computed again
        set_array(tensors["v"], np.full(1, 1, np.float32))
    assert found == {"a": [2, 4, 6], "y": [5, 10, 15]}


def test_what_no_later_step_needs_is_forgotten(diamond, monkeypatch):
    held = []

    def watched(session, known):
        held.append(set(known))
        return run_on(session, known)

    monkeypatch.setattr(activations, "run_on", watched)
    list(step_by_step(diamond, "aby", FEEDS[:1], 1))
    assert held == [{"x"}, {"x", "a"}, {"a", "b"}]


def branching(save_graph):
    """An If whose branches capture `a`, a weight, and values of the graph around them."""
    value = helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 2])
    body = [helper.make_node("Add", ["a", "w"], ["s"]), helper.make_node("Neg", ["s"], ["z"])]
    inner = helper.make_graph(body, "then", [], [value])
    nodes = [
        helper.make_node("Exp", ["x"], ["a"]),
        helper.make_node("Exp", ["x"], ["unused"]),
        helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner),
    ]
    inputs = [("x", [1, 2]), ("c", TensorProto.BOOL, [])]
    return onnx.load(save_graph(nodes, inputs, [("y", [1, 2])], {"w": np.ones((1, 2), np.float32)}))


def test_a_branch_takes_what_it_captures(save_graph):
    model = branching(save_graph)
    assert set(node_inputs(model.graph.node[2])) == {"c", "a", "w"}
    cut = extract_subgraph(model, ["y"])
    assert [node.op_type for node in cut.graph.node] == ["Exp", "If"]
    found = session_of(cut).run(None, {"x": np.zeros((1, 2), np.float32), "c": np.array(True)})[0]
    np.testing.assert_allclose(found, [[-2, -2]])
    assert descendants(model, ["a"]) == {"y"} == descendants(model, ["w"])
    assert "y" not in constant_values(model)


def test_types_need_no_weights_in_memory(save_graph):
    weight = np.ones((2, 512), np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Neg", ["a"], ["y"])]
    model = onnx.load(save_graph(nodes, [("x", [1, 2])], [("y", [1, 512])], {"w": weight}))
    (tensor,) = model.graph.initializer
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="nowhere")
    assert value_types(model)["a"] == TensorProto.FLOAT
    assert float_values(model) == ["x", "a", "y"]
