"""Channels come closer in size, and the answers stay."""

import numpy as np
import onnx
import pytest
from onnx import helper

from onnx_release.activations import cut, session_of
from onnx_release.equalize import equalize, equalize_on, linear_groups, linear_values
from tests.residual import save_inputs, save_network


@pytest.fixture
def network(save_graph):
    return onnx.load(save_network(save_graph))


def test_only_what_nothing_but_add_touches_is_linear(network):
    assert linear_values(network) == ["a", "c3", "c4"]
    ((_, makers, takers),) = linear_groups(network)
    assert [layer.name for layer in makers] == ["project", "inner"]
    assert [layer.name for layer in takers] == ["inner", "expand"]


def test_the_answers_stay_and_the_channels_come_closer(network, tmp_path):
    samples = save_inputs(tmp_path)
    scaled, count = equalize_on(network, samples, 4)
    assert count == 3
    x = {"x": samples.inputs(0)["x"][np.newaxis]}
    before, after = (session_of(model).run(None, x)[0] for model in (network, scaled))
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)

    def spread(model):
        sizes = np.abs(session_of(cut(model, ["c3"])).run(None, x)[0]).max(axis=(0, 2, 3))
        return sizes.max() / sizes.min()

    assert spread(scaled) < 0.5 * spread(network)


def test_scales_are_the_square_root_of_what_is_missing(network):
    """Sizes 1 and 16 have the geometric mean 4, so their scales are 2 and a half."""
    sizes = np.array([1.0, 16.0, 4.0, 4.0])
    scaled, _ = equalize(network, dict.fromkeys(["a", "c3", "c4"], sizes))
    bias = {
        name: {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}["b3"]
        for name, model in (("before", network), ("after", scaled))
    }
    np.testing.assert_allclose(bias["after"] / bias["before"], [2, 0.5, 1, 1], rtol=1e-6)


def test_a_dead_channel_leaves_its_value_alone(network):
    _, count = equalize(network, dict.fromkeys(["a", "c3", "c4"], np.array([1.0, 0.0, 1.0, 1.0])))
    assert count == 0


@pytest.mark.parametrize("operator", ["Relu", "Sigmoid", "Mul"])
def test_a_value_that_anything_else_takes_is_not_linear(save_graph, operator):
    weights = {"w": np.ones((2, 2, 1, 1), np.float32), "v": np.ones((2, 2, 1, 1), np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="one"),
        helper.make_node("Conv", ["a", "v"], ["b"], name="two"),
        helper.make_node(operator, ["a", "a"] if operator == "Mul" else ["a"], ["c"], name="other"),
        helper.make_node("Add", ["b", "c"], ["y"], name="sum"),
    ]
    model = onnx.load(save_graph(nodes, [("x", ["n", 2, 3, 3])], [("y", ["n", 2, 3, 3])], weights))
    assert linear_values(model) == []
